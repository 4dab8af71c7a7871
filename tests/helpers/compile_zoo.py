"""Compiles every model of the zoo as one graph and compares it with the eager one; prints the names that passed."""

import torch

from zoo import ZOO, build, example

for name, config in ZOO.items():
    torch.compiler.reset()
    model, x = build(config).eval(), example(config)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(x, "task"), model(x, "task"), atol=1e-5, rtol=1e-5)
    print(name)
