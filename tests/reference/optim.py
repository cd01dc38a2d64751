"Optimizers as their papers write them: one tensor at a time in float64 with numpy, hyper-parameters handed in at each step."
import math

import numpy as np


class Reference:
    "Adam and its kin for one weight; `centre`, `rectify`, `belief` as the papers have them, Lookahead where `k` is given."
    def __init__(self, w, belief=False, rectify=False, centre=False, decouple=True, beta=0., k=None, alpha=.5):
        self.w = np.array(w, np.float64)
        self.m, self.s, self.t = np.zeros_like(self.w), np.zeros_like(self.w), 0
        self.belief, self.rectify, self.centre, self.decouple, self.beta, self.k, self.alpha = belief, rectify, centre, decouple, beta, k, alpha
        self.slow = None

    def step(self, g, lr, mom, sqr_mom, eps, wd):
        if self.slow is None: self.slow = self.w.copy()
        g = np.array(g, np.float64)
        if self.centre: g = g - g.mean(axis=tuple(range(1, g.ndim)), keepdims=True)
        if self.decouple: self.w = self.w - lr * wd * self.w
        else: g = g + wd * self.w
        self.t += 1
        self.m = mom * self.m + (1 - mom) * g
        self.s = sqr_mom * self.s + (1 - sqr_mom) * (g - self.m if self.belief else g)**2 + (eps if self.belief else 0.)
        m_hat, root = self.m / (1 - mom**self.t), np.sqrt(self.s / (1 - sqr_mom**self.t)) + eps
        if self.beta: root = np.log1p(np.exp(self.beta * root)) / self.beta
        if not self.rectify:
            self.w = self.w - lr * m_hat / root
            return
        rho_inf = 2 / (1 - sqr_mom) - 1
        rho = rho_inf - 2 * self.t * sqr_mom**self.t / (1 - sqr_mom**self.t)
        if rho > 5:
            r = math.sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho))
            self.w = self.w - lr * r * m_hat / root
        else: self.w = self.w - lr * m_hat

    def meet(self):
        "The end of `k` steps of Lookahead."
        self.slow = self.slow + self.alpha * (self.w - self.slow)
        self.w = self.slow.copy()


def sgd(w, g, buf, lr, mom, wd, nesterov):
    "One step of SGD as torch defines momentum, with decoupled decay; returns (w, buf)."
    buf = mom * buf + g
    return w * (1 - lr * wd) - lr * (g + mom * buf if nesterov else buf), buf


def rmsprop(w, g, sq, lr, sqr_mom, eps, wd):
    "One step of RMSprop without momentum, with decoupled decay; returns (w, sq)."
    sq = sqr_mom * sq + (1 - sqr_mom) * g * g
    return w * (1 - lr * wd) - lr * g / (np.sqrt(sq) + eps), sq
