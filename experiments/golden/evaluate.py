"""Golden values of tests/measures: kNN by lightly and scikit-learn, logistic regression by both.

Run with an interpreter that has torch, lightly and scikit-learn:

    python experiments/golden/evaluate.py

and copy what it prints into tests/measures/test_knn.py and test_logistic.py. Needs no sslax.
"""

import ast
import importlib.util
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.neighbors import KNeighborsClassifier


def problem():
    """Four overlapping classes, 160 training and 80 test rows of 6 features (as in the tests)."""
    rng = np.random.RandomState(0)
    centers = rng.normal(size=(4, 6))
    labels = np.arange(240) % 4
    features = (centers[labels] + 1.2 * rng.normal(size=(240, 6))).astype(np.float32)
    return features[:160], labels[:160], features[160:], labels[160:]


def lightly_knn_predict():
    """lightly's function alone: importing its package pulls in Lightning."""
    root = Path(importlib.util.find_spec("lightly").submodule_search_locations[0])
    for path in root.rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.name == "knn_predict":
                node.returns = None
                for argument in node.args.args:
                    argument.annotation = None
                scope = {"torch": torch, "Tensor": torch.Tensor}
                exec(compile(ast.Module([node], []), str(path), "exec"), scope)
                return scope["knn_predict"]
    raise LookupError("lightly has no knn_predict")


def main():
    x, y, t, truth = problem()

    def unit(a):
        return a / np.linalg.norm(a, axis=1, keepdims=True)

    predict = lightly_knn_predict()
    for k, temperature in ((20, 0.07), (100, 0.1)):
        ranked = predict(
            torch.tensor(unit(t)),
            torch.tensor(unit(x)).T.contiguous(),
            torch.tensor(y),
            num_classes=4,
            knn_k=k,
            knn_t=temperature,
        ).numpy()
        reference = KNeighborsClassifier(
            k,
            metric="cosine",
            algorithm="brute",
            weights=lambda d, temperature=temperature: np.exp((1 - d) / temperature),
        ).fit(x.astype(np.float64), y)
        p = reference.predict_proba(t.astype(np.float64))
        print(f"kNN k={k} T={temperature}: lightly accuracy {(ranked[:, 0] == truth).mean():.10g}")
        print("  lightly ranking of the first five:", ranked[:5].tolist())
        print(f"  scikit-learn accuracy {(p.argmax(1) == truth).mean():.10g}")
        print("  probabilities of the first three:", np.round(p[:3], 6).tolist())

    for l2 in (1e-1, 1e-2, 1e-4):
        fit = LogisticRegression(C=1 / (len(x) * l2), tol=1e-10, max_iter=10000)
        fit.fit(x.astype(np.float64), y)
        w = fit.coef_ - fit.coef_.mean(0)
        loss = log_loss(y, fit.predict_proba(x)) + 0.5 * l2 * np.sum(w**2)
        print(f"logistic l2={l2}: loss {loss:.8f} accuracy {fit.score(t, truth):.10g}")
        print("  first feature's weights:", np.round(w[:, 0], 5).tolist())


if __name__ == "__main__":
    main()
