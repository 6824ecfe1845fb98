"""Corruptions of images that need no photographs, at the five severities published for CIFAR."""
