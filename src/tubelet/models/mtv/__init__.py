"""MTV: Multiview Transformers (Yan et al. 2022). Tubelets of several sizes side by side, each with its own encoder."""

from tubelet.models.mtv.config import BottleneckFusion, CrossViewFusion, Fusion, MLPFusion, MTVConfig, Stream
from tubelet.models.mtv.encoder import MTV

__all__ = ["MTV", "BottleneckFusion", "CrossViewFusion", "Fusion", "MLPFusion", "MTVConfig", "Stream"]
