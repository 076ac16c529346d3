"""Pictures in and out: decode under limits, encode without loss, resize, and make them visible in a report."""

from embattle.images.decode import MAX_PIXELS, Header, Picture, decode, read_header, read_picture
from embattle.images.encode import encode_png, from_tensor, to_tensor
from embattle.images.pictures import difference, thumbnail
from embattle.images.resize import resize

__all__ = [
    "MAX_PIXELS",
    "Header",
    "Picture",
    "decode",
    "difference",
    "encode_png",
    "from_tensor",
    "read_header",
    "read_picture",
    "resize",
    "thumbnail",
    "to_tensor",
]
