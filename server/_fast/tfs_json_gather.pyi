"""Predict instances that are objects; for C users only. Tested through tfs_json_index."""
