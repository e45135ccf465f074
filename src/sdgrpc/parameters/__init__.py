"""The generation parameters of a picture as a text, written and read. No torch here.

    from sdgrpc.parameters import read_parameters, text_of_picture

    parameters = read_parameters(text_of_picture(Path("picture.png").read_bytes()))
    parameters.prompt, parameters.seed, parameters.notes

The format is that of AUTOMATIC1111's web UI ("infotext").
"""

from sdgrpc.parameters.pictures import NoParameters, text_of_picture
from sdgrpc.parameters.reading import Parameters, PictureLora, read_parameters
from sdgrpc.parameters.writing import parameters_text

__all__ = [
    "NoParameters",
    "Parameters",
    "PictureLora",
    "parameters_text",
    "read_parameters",
    "text_of_picture",
]
