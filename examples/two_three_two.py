"""A network of 2 inputs, 3 hidden units and 2 outputs, by hand: ``python -m examples.two_three_two``.

``docs/mathematics.md`` and ``notebooks/mathematics.ipynb`` show the cells with their output.
"""

# %% network
from functools import partial
from itertools import product

import torch

from cifar2 import gradcheck
from cifar2.descent import by_backpropagation
from cifar2.losses import LOSSES
from cifar2.mynet import MyNet, backpropagation, gradients
from cifar2.sgd import SGD

matrix = partial(torch.tensor, dtype=torch.float64)


def show(name: str, values: torch.Tensor) -> None:
    """Print a matrix row by row, with four decimals."""
    for row in torch.atleast_2d(values).tolist():
        print(f"{name:<12}", *(f"{value:z9.4f}" for value in row))
        name = ""


w, b = {}, {}
w[1] = matrix([[0.3, -0.1], [0.2, 0.4], [-0.5, 0.1]])
b[1] = matrix([0.1, 0.0, -0.1])
w[2] = matrix([[0.5, -0.2, 0.1], [-0.3, 0.4, 0.2]])
b[2] = matrix([0.1, -0.1])

model = MyNet((2, 3, 2), "tanh", "identity").double()
weights = {f"fc.{l}.weight": w[l] for l in (1, 2)}
biases = {f"fc.{l}.bias": b[l] for l in (1, 2)}
model.load_state_dict(weights | biases)

x = matrix([[1, 2], [-1, 1]])  # two examples
y = torch.tensor([1, 0])  # their classes

# %% forward
z, a = {}, {0: x}
z[1] = a[0] @ w[1].T + b[1]
a[1] = torch.tanh(z[1])
z[2] = a[1] @ w[2].T + b[2]
a[2] = z[2]  # the identity
for l in (1, 2):
    show(f"z[{l}]", z[l])
    show(f"a[{l}]", a[l])

y_pred = model(x)
print("matches MyNet:", torch.allclose(a[2], y_pred))

# %% loss
t = matrix([[0, 1], [1, 0]])  # row i: probability 1 for the class of example i
s = torch.exp(a[2]) / torch.exp(a[2]).sum(1, keepdim=True)  # softmax
loss = -(t * torch.log(s)).sum() / len(x)
show("s", s)
show("loss", loss)
print("matches losses.py:", torch.allclose(loss, LOSSES["cross_entropy"].value(y, y_pred)))

# %% output
delta, dL_dw, dL_db = {}, {}, {}
delta[2] = (s - t) / len(x)  # times the derivative of the identity, 1
dL_dw[2] = delta[2].T @ a[1]
dL_db[2] = delta[2].sum(0)
show("delta[2]", delta[2])
show("dL_dw[2]", dL_dw[2])
show("dL_db[2]", dL_db[2])

# %% hidden
dL_da = delta[2] @ w[2]
delta[1] = dL_da * (1 - a[1] ** 2)
dL_dw[1] = delta[1].T @ a[0]
dL_db[1] = delta[1].sum(0)
show("dL_da[1]", dL_da)
show("delta[1]", delta[1])
show("dL_dw[1]", dL_dw[1])
show("dL_db[1]", dL_db[1])

backpropagation(model, y, y_pred, "cross_entropy")
by_hand = dL_dw[1], dL_db[1], dL_dw[2], dL_db[2]
print("matches backpropagation:", all(map(torch.allclose, by_hand, gradients(model))))


# %% check
def loss_with(w1: torch.Tensor) -> torch.Tensor:
    """The loss with other weights of layer 1."""
    return LOSSES["cross_entropy"].value(y, torch.tanh(x @ w1.T + b[1]) @ w[2].T + b[2])


quotients = torch.zeros_like(w[1])
for j, k in product(range(3), range(2)):
    shift = torch.zeros_like(w[1])
    shift[j, k] = 1e-6
    quotients[j, k] = (loss_with(w[1] + shift) - loss_with(w[1] - shift)) / 2e-6
show("quotients", quotients)
print("matches dL_dw[1]:", torch.allclose(quotients, dL_dw[1]))

differences = gradcheck.by_finite_differences(model, x, y, "cross_entropy")
error = gradcheck.relative_error(gradients(model), differences)
print("all 17 derivatives, relative error below 1e-8:", error < 1e-8)

# %% step
lr, momentum, weight_decay = 0.5, 0.9, 0.1
v_w, v_b = {}, {}
for l in (1, 2):
    v_w[l] = dL_dw[l] + weight_decay * w[l]  # the velocity starts as the first g
    v_b[l] = dL_db[l] + weight_decay * b[l]
    w[l] = w[l] - lr * v_w[l]
    b[l] = b[l] - lr * v_b[l]
    show(f"v of w[{l}]", v_w[l])
    show(f"new w[{l}]", w[l])
    show(f"v of b[{l}]", v_b[l])
    show(f"new b[{l}]", b[l])

sgd = SGD(model.parameters(), lr, momentum, weight_decay)
by_backpropagation(model, y, model(x), label_smoothing=0, class_weights=None)
sgd.step()
by_hand = w[1], b[1], w[2], b[2]
print("matches SGD:", all(map(torch.allclose, by_hand, model.parameters())))
show("loss", LOSSES["cross_entropy"].value(y, model(x)))

# %% momentum
by_backpropagation(model, y, model(x), label_smoothing=0, class_weights=None)
for l in (1, 2):
    v_w[l] = momentum * v_w[l] + model.dL_dw[l] + weight_decay * w[l]
    v_b[l] = momentum * v_b[l] + model.dL_db[l] + weight_decay * b[l]
    w[l] = w[l] - lr * v_w[l]
    b[l] = b[l] - lr * v_b[l]
show("v of w[2]", v_w[2])
show("new w[2]", w[2])

sgd.step()
by_hand = w[1], b[1], w[2], b[2]
print("matches SGD:", all(map(torch.allclose, by_hand, model.parameters())))
show("loss", LOSSES["cross_entropy"].value(y, model(x)))
