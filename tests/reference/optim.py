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
        self.mean = np.zeros_like(self.weight)
        self.square_mean = np.zeros_like(self.weight)
        self.steps = 0
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
        gradient = np.array(grad, np.float64)
        if self.centralize:
            gradient = gradient - gradient.mean(axis=tuple(range(1, gradient.ndim)), keepdims=True)
        if self.decouple: self.weight = self.weight - lr * wd * self.weight
        else: gradient = gradient + wd * self.weight
        self.steps += 1
        self.mean = mom * self.mean + (1 - mom) * gradient
        surprise = gradient - self.mean if self.belief else gradient
        self.square_mean = sqr_mom * self.square_mean + (1 - sqr_mom) * surprise**2
        if self.belief: self.square_mean = self.square_mean + eps
        corrected_mean = self.mean / (1 - mom**self.steps)
        root = np.sqrt(self.square_mean / (1 - sqr_mom**self.steps)) + eps
        if self.beta: root = np.log1p(np.exp(self.beta * root)) / self.beta
        if not self.rectify:
            self.weight = self.weight - lr * corrected_mean / root
            return
        rho_inf = 2 / (1 - sqr_mom) - 1
        rho = rho_inf - 2 * self.steps * sqr_mom**self.steps / (1 - sqr_mom**self.steps)
        if rho > 5:
            rectification = math.sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho))
            self.weight = self.weight - lr * rectification * corrected_mean / root
        else: self.weight = self.weight - lr * corrected_mean

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
