"""A network of layers by hand, on scikit-learn's 1797 handwritten digits: python examples/digits.py

Nothing but `pynn.layers` and an optimizer: the way of chapter 5 of *Deep Learning from Scratch*.
Needs scikit-learn.
"""

import time

import numpy as np
from sklearn.datasets import load_digits

from pynn import initializers, optimizers
from pynn.layers import Affine, BatchNormalization, Dropout, Relu, SoftmaxWithLoss

EPOCHS, BATCH, WIDTH = 30, 64, 100

x, t = load_digits(return_X_y=True)
x = (x / 16).astype(np.float32)
order = np.random.default_rng(0).permutation(len(x))
x, t = x[order], t[order]
x_train, t_train, x_test, t_test = x[:1400], t[:1400], x[1400:], t[1400:]

params = {
    "W1": initializers.he_normal((64, WIDTH), rng=1),
    "b1": np.zeros(WIDTH, np.float32),
    "gamma1": np.ones(WIDTH, np.float32),
    "beta1": np.zeros(WIDTH, np.float32),
    "W2": initializers.he_normal((WIDTH, WIDTH), rng=2),
    "b2": np.zeros(WIDTH, np.float32),
    "W3": initializers.he_normal((WIDTH, 10), rng=3),
    "b3": np.zeros(10, np.float32),
}
first = Affine(params["W1"], params["b1"])
normal = BatchNormalization(params["gamma1"], params["beta1"])
second = Affine(params["W2"], params["b2"])
third = Affine(params["W3"], params["b3"])
layers = [first, normal, Relu(), Dropout(0.2, rng=4), second, Relu(), third]
loss_layer, optimizer = SoftmaxWithLoss(), optimizers.Adam(lr=0.002)


def predict(x, train_flg=False):
    """Send x through the layers."""
    for layer in layers:
        if isinstance(layer, Dropout | BatchNormalization):
            x = layer.forward(x, train_flg)
        else:
            x = layer.forward(x)
    return x


def step(x, t):
    """Forward, backward, update."""
    loss = loss_layer.forward(predict(x, train_flg=True), t)
    dout = loss_layer.backward()
    for layer in reversed(layers):
        dout = layer.backward(dout)
    grads = {"gamma1": normal.dgamma, "beta1": normal.dbeta}
    for i, layer in enumerate((first, second, third), 1):
        grads[f"W{i}"], grads[f"b{i}"] = layer.dW, layer.db
    optimizer.update(params, grads)
    return loss


start = time.perf_counter()
shuffle = np.random.default_rng(1)
for epoch in range(1, EPOCHS + 1):
    order = shuffle.permutation(len(x_train))
    losses = [
        step(x_train[chosen], t_train[chosen])
        for chosen in np.array_split(order, len(order) // BATCH)
    ]
    if epoch % 5 == 0:
        accuracy = np.mean(predict(x_test).argmax(axis=1) == t_test)
        print(f"epoch {epoch:2d}: loss {np.mean(losses):.4f}, test accuracy {accuracy:.4f}")
print(f"{time.perf_counter() - start:.2f} s")
