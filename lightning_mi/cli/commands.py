"""The training commands of `lightning-mi`, each with its purpose."""

TRAINING_COMMANDS = {
    "fit": "train on a recipe or on your own configuration",
    "validate": "evaluate on the validation data",
    "test": "evaluate on the test data",
    "predict": "compute predictions, for a prediction-writing callback to keep",
}
