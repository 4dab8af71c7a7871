"""Exports every model of the zoo with a dynamic batch and runs it with another one; prints the names that passed."""

import torch
from torch.export import Dim

from zoo import ZOO, build, example

for name, config in ZOO.items():
    model, x = build(config).eval(), example(config)
    batch = {key: {0: Dim("batch", min=1, max=64)} for key in x}
    exported = torch.export.export(model, (x,), dynamic_shapes={"inputs": batch}).module()
    more = {key: torch.cat([value, value[:1].flip(-1)]) for key, value in x.items()}
    with torch.no_grad():
        torch.testing.assert_close(exported(more), model(more), atol=1e-5, rtol=1e-5)
    print(name)
