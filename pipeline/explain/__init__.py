"""From a model's answers to pictures: saliency, and the report."""
