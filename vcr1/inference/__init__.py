"""Asking a trained model: questions, answers and closer looks, for evaluation, prediction and the page."""
