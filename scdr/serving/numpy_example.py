"""Recommend by NumPy alone: python example.py USER, or python example.py ITEM=RATING ..."""

import json
import sys

import numpy as np

model = dict(np.load("model.npz"))
users, items, known = (json.loads(model[f"{n}_ids"].tobytes()) for n in ("user", "item", "source"))
vector, offsets = np.zeros(model["item_vectors"].shape[1]), model["item_priors"]  # of nobody
curve = model["curve"][[0, 0]]  # no more than clips
pairs = [argument.rpartition("=") for argument in sys.argv[1:]]
rated = {known.index(item): float(rating) for item, _, rating in pairs if item in known}
if sys.argv[1] in users:
    vector = model["user_vectors"][users.index(sys.argv[1])]
elif rated:  # ridge regression on the source items, then the mapping
    y = model["source_items"][list(rated)]
    residuals = np.array(list(rated.values())) - model["source_known"][list(rated)]
    vector = np.linalg.solve(y.T @ y + np.diag(model["penalties"]), y.T @ residuals)
    for n in range(int(model["layers"])):
        vector = model[f"weight_{n}"] @ (np.tanh(vector) if n else vector) + model[f"bias_{n}"]
if vector.any():
    offsets, curve = model["item_offsets"], model["curve"]
scores = offsets + model["item_vectors"] @ vector
for item in np.argsort(-scores, kind="stable")[:20]:
    print(items[item], round(float(np.interp(scores[item], *curve)), 3))
