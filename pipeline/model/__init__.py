"""From crops to class scores: backbone, embedding, prototypes, losses."""
