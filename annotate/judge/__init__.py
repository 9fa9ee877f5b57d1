"""An AI judge behind any OpenAI-compatible endpoint: a source of labels of its own, never a person."""
