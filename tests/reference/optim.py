"""Optimizers as their papers write them: one weight at a time in float64 with numpy, hyper-parameters
handed in at each step."""
import math

import numpy as np


class Reference:
    """Adam and its relatives for one weight; `centralize`, `rectify`, `belief` as the papers have them,
    Lookahead with `k`."""
    def __init__(self, weight, belief=False, rectify=False, centralize=False, decouple=True, beta=0., k=None,
                 alpha=.5):
        self.weight = np.array(weight, np.float64)
        self.m = np.zeros_like(self.weight)
        self.s = np.zeros_like(self.weight)
        self.t = 0
        self.belief = belief
        self.rectify = rectify
        self.centralize = centralize
        self.decouple = decouple
        self.beta = beta
        self.k = k
        self.alpha = alpha
        self.slow = None

    def step(self, grad, lr, mom, sqr_mom, eps, wd):
        if self.slow is None: self.slow = self.weight.copy()
        g = np.array(grad, np.float64)
        if self.centralize: g = g - g.mean(axis=tuple(range(1, g.ndim)), keepdims=True)
        if self.decouple: self.weight = self.weight - lr * wd * self.weight
        else: g = g + wd * self.weight
        self.t += 1
        self.m = mom * self.m + (1 - mom) * g
        if self.belief: self.s = sqr_mom * self.s + (1 - sqr_mom) * (g - self.m)**2 + eps
        else: self.s = sqr_mom * self.s + (1 - sqr_mom) * g**2
        m_hat = self.m / (1 - mom**self.t)
        root = np.sqrt(self.s / (1 - sqr_mom**self.t)) + eps
        if self.beta: root = np.log1p(np.exp(self.beta * root)) / self.beta
        if not self.rectify:
            self.weight = self.weight - lr * m_hat / root
            return
        rho_inf = 2 / (1 - sqr_mom) - 1
        rho = rho_inf - 2 * self.t * sqr_mom**self.t / (1 - sqr_mom**self.t)
        if rho > 5:
            r = math.sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho))
            self.weight = self.weight - lr * r * m_hat / root
        else: self.weight = self.weight - lr * m_hat

    def meet(self):
        "The end of `k` steps of Lookahead."
        self.slow = self.slow + self.alpha * (self.weight - self.slow)
        self.weight = self.slow.copy()


def sgd(weight, grad, buffer, lr, mom, wd, nesterov):
    "One step of SGD as torch defines momentum, with decoupled decay; returns (weight, buffer)."
    buffer = mom * buffer + grad
    return weight * (1 - lr * wd) - lr * (grad + mom * buffer if nesterov else buffer), buffer


def rmsprop(weight, grad, squares, lr, sqr_mom, eps, wd):
    "One step of RMSprop without momentum, with decoupled decay; returns (weight, squares)."
    squares = sqr_mom * squares + (1 - sqr_mom) * grad * grad
    return weight * (1 - lr * wd) - lr * grad / (np.sqrt(squares) + eps), squares
