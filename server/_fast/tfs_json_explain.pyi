"""TensorFlow Serving's texts for a predict body that is refused; for C users, tested through tfs_json_index."""
