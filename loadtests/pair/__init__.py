"""The bundled demo pair: generated questions with checkable answers, and the training of two small models on them."""
