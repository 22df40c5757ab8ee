"""Features: one definition for the stream, for training and for serving.

State is data (`rows`, made by `state.update`); a feature is a pure function of
(state, now) (`snapshot`); `spec` names, orders and hashes them.
"""
