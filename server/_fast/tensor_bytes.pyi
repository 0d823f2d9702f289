"""Binary tensor sections; for C users only. Tested through infer_json_index."""
