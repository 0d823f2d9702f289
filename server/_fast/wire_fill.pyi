"""Repeated protobuf numbers to tensor rows; no Python face of its own (infer_wire.index and tensor_proto.index use
it).
"""
