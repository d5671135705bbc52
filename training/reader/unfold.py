"""Goes on from exported weights: puts back the batch normalisation that was folded into the convolutions."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


@torch.no_grad()
def unfold_normalisation(network: nn.Module, weights: Mapping[str, Tensor], *inputs: Tensor) -> None:
    """Load folded weights so that for such inputs nothing changes.

    The statistics of the inputs become those of the normalisation, their spread and mean its gain and bias.

    Args:
        network: with batch normalisation; is left in training mode.
        weights: of the same network after `fold_normalisation`.
        inputs: what the network takes; some hundreds of examples.
    """
    norms = {f"{name}.0.bias": module[1] for name, module in network.named_modules() if _is_normalised(module)}
    network.load_state_dict({name: value for name, value in weights.items() if name not in norms}, strict=False)

    def fitted(bias: Tensor) -> object:
        def measure(norm: nn.BatchNorm2d, given: tuple[Tensor, ...]) -> None:
            spread, mean = torch.var_mean(given[0].float(), (0, 2, 3))
            norm.load_state_dict(
                {
                    "running_var": spread,
                    "running_mean": mean,
                    "weight": (spread + norm.eps).sqrt(),
                    "bias": bias + mean,
                    "num_batches_tracked": torch.tensor(1),
                }
            )

        return measure

    hooks = [norm.register_forward_pre_hook(fitted(weights[name])) for name, norm in norms.items()]
    network.eval()(*inputs)
    for hook in hooks:
        hook.remove()
    network.train()


def _is_normalised(module: nn.Module) -> bool:
    return isinstance(module, nn.Sequential) and len(module) == 2 and isinstance(module[1], nn.BatchNorm2d)
