"""Networks, called ``net(x, t, **cond)``: torch only, and known to nobody below floor 4.

x (B, *) comes scaled by the parametrization, t () or (B,) lies in [0, 1] and is embedded by the
net itself, a label is ``y`` (B,) long, with "no label" = the number of classes, a vector ``c``
(B, context), with "not known" = NaN.
"""

from .mlp import (
    MLP,
    Classifier,
    ClassifierConfig,
    ConcatMLP,
    ConcatMLPConfig,
    MLPConfig,
    TimeFeatures,
)
from .precision import Autocast
from .transformer import Transformer, TransformerConfig
from .unet1d import UNet1d, UNet1dConfig
from .wrapped import bare

__all__ = [
    "MLP",
    "Autocast",
    "Classifier",
    "ClassifierConfig",
    "ConcatMLP",
    "ConcatMLPConfig",
    "MLPConfig",
    "TimeFeatures",
    "Transformer",
    "TransformerConfig",
    "UNet1d",
    "UNet1dConfig",
    "bare",
]
