"""The `rankstream` command: what a person does with the client, with dead letters and the log.

Output for people on stdout; with --json, one JSON document. Refusals go to stderr, exit code 1.
"""

from rankstream.cli.commands import app

__all__ = ["app"]
