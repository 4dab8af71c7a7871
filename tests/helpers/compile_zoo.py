"""Compiles models of the zoo, each as one graph, and compares them with the eager ones; prints the names that pass."""

import sys

import torch

from zoo import ZOO, build, example

for name in sys.argv[1:]:
    config = ZOO[name]
    torch.compiler.reset()
    model, x = build(config).eval(), example(config)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(x, "task"), model(x, "task"), atol=1e-5, rtol=1e-5)
    print(name)
