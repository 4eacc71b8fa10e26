"""How TensorBoard groups the curves of a training: a custom-scalars layout."""

CHARTS = {
    "mutual information (nats)": {
        "training": ["Multiline", ["^train/mi$", "^train/true_mi$", "^train/log_n$"]],
        "held out": ["Multiline", ["^val/mi$", "^val/mi_plug_in$", "^val/true_mi$", "^val/log_n$"]],
    },
    "terms (nats)": {
        "joint and marginal term": ["Multiline", ["^train/joint_term$", "^train/marginal_term$"]],
        "log-normalizer": ["Multiline", ["^train/log_normalizer$"]],
    },
}
