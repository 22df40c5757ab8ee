"""The same job in other frameworks, as near as each comes; run in the environment of peers.txt.

Each program reads records of 1..n JSON events, keeps a session per user (gap of 30 minutes), joins
clicks to impressions of the last 30 minutes, and counts events per item and per category in windows
of one hour. Left out, in the peers' favour: dedupe, a watermark and lateness common to all parts,
labels that become final (negatives) and are corrected, three of four windows, the counts per user,
feature rows in Redis, the lake.
"""
