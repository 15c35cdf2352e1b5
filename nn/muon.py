"""Muon, an optimiser that learns in fewer steps than Adam, for networks of matrices. Next: rates.py."""

import itertools
import math

import numpy as np

from nn.backend import array_module
from nn.cpu.blas import one_blas_thread
from nn.optim import Adam

__all__ = ["Muon", "orthogonalised"]


class Muon(Adam):
    """Each matrix moves along its mean gradient made orthogonal: equally far in all directions. (Jordan et al. 2024)

    A gradient has a few large directions and many small ones. `Adam` mostly follows the large ones. Here all count
    alike, so a network learns in fewer steps. A filter (KH, KW, C, O) is a matrix of KH KW C rows. The root mean square
    of an update is about the learning rate. Parameters of one axis or none, such as biases, take Adam's step.
    """

    def __init__(self, parameters, learning_rate=2e-3, betas=(0.95, 0.999), epsilon=1e-8, weight_decay=0.0):
        super().__init__(parameters, learning_rate, betas, epsilon, weight_decay)
        ends = itertools.accumulate(p.size for p in self.parameters)
        self._shapes = {end - p.size: p.shape for p, end in zip(self.parameters, ends, strict=True) if p.size}

    def blocks(self):
        return [slice(start, start + math.prod(shape)) for start, shape in self._shapes.items()]

    def update(self, p, gradient, rate, block):
        shape = self._shapes[block.start]
        if len(shape) < 2:
            super().update(p, gradient, rate, block)
            return
        mean, beta = self.mean[block], self.betas[0]
        mean *= beta
        mean += (1 - beta) * gradient
        ahead = (beta * mean + (1 - beta) * gradient).reshape(-1, shape[-1])  # as Nesterov looks one step ahead
        if self.weight_decay:
            p *= 1 - rate * self.weight_decay
        p -= rate * math.sqrt(max(ahead.shape)) * orthogonalised(ahead).reshape(-1)


def orthogonalised(matrix):
    """A matrix near U V^T, where U S V^T is the singular value decomposition of `matrix`: (rows, columns), like it.

    Five steps of an odd polynomial of degree 5 bring every singular value above 0.002 of the norm to 0.68..1.21 (Jordan
    et al. 2024). The steps multiply the matrix by polynomials of its small Gram matrix, so all but the last product are
    small. A matrix of zeros stays zero.
    """
    if matrix.shape[0] > matrix.shape[1]:
        return orthogonalised(matrix.T).T
    xp = array_module(matrix)
    matrix = matrix / xp.maximum(xp.sqrt((matrix * matrix).sum()), np.finfo(matrix.dtype).tiny)
    with one_blas_thread:  # threads cost more than they save here, and would change the last bits
        one = xp.eye(len(matrix), dtype=matrix.dtype)
        gram, product = matrix @ matrix.T, one
        for _ in range(5):
            factor = 3.4445 * one - 4.7750 * gram + 2.0315 * (gram @ gram)
            gram, product = factor @ gram @ factor, factor @ product
        return product @ matrix
