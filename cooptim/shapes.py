"""Names of the axes that array annotations use; one name means one length everywhere in the package."""

AXES: dict[str, str] = {
    "layer": "layers of the workload, in its order",
    "mode": "subword modes of the machine, in its order",
    "row": "candidate tilings of a layer, padded to the longest list",
    "choice": "alternatives of a relaxed choice",
    "batch": "images of a batch",
    "y": "rows of an image",
    "x": "columns of an image",
    "channel": "channels of an image, last (NHWC)",
    "step": "recorded steps of a descent",
}
