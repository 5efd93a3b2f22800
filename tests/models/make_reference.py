"""
Make data/minilm_reference.json: vectors of transformers' own BertModel on the official weights.

    python tests/models/make_reference.py FOLDER tests/models/data/minilm_reference.json

FOLDER holds the model in Hugging Face layout. Needs torch and transformers; no test runs this, they read what it wrote.
"""

import base64
import hashlib
import json
import sys
from pathlib import Path

SENTENCES = [
    "Hello world",
    "What is the capital of France?",
    "the quick brown fox jumps over the lazy dog",
    "THE QUICK BROWN FOX JUMPS OVER THE LAZY DOG",
    "a",
    "?!...",
    "12 + 30 = 42",
    "Order 66-A/3 ships on 2024-02-29 at 07:05; total €1,299.00 (incl. 19% VAT).",
    "Der schnelle braune Fuchs springt über den faulen Hund.",
    "Où est la bibliothèque, s'il vous plaît ?",
    "¿Cuántos años tienes?",
    "東京は日本の首都です。",
    "Москва слезам не верит",
    "مرحبا بالعالم",
    "🙂🚀 emoji only",
    "def add(a: int, b: int) -> int:\n    return a + b",
    "Sort these words alphabetically: pear, apple, fig, plum, cherry.",
    "A patient presents with chest pain; which drug interactions with warfarin must be ruled out first?",
    "supercalifragilisticexpialidocious antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis",
    " ".join(f"Sentence number {n} makes this text longer than the model reads." for n in range(40)),
]
MAX_TOKENS = 256


def main(folder: Path, destination: Path) -> None:
    import torch
    import transformers  # nothing else of the project needs it

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.BertModel.from_pretrained(folder).eval()
    vectors = []
    for sentence in SENTENCES:
        batch = tokenizer(sentence, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
        with torch.no_grad():
            mean = model(**batch).last_hidden_state.mean(dim=1)
        vectors.append(torch.nn.functional.normalize(mean)[0].numpy().astype("<f4"))
    reference = {
        "origin": {
            "made_by": "tests/models/make_reference.py",
            "model": "sentence-transformers/all-MiniLM-L6-v2",
            "weights_sha256": hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "max_tokens": MAX_TOKENS,
            "vectors": "little-endian float32 [384], base64; mean over tokens, L2-normalized; one sentence at a time",
        },
        "sentences": [
            {"text": text, "vector": base64.b64encode(vector.tobytes()).decode()}
            for text, vector in zip(SENTENCES, vectors, strict=True)
        ],
    }
    destination.write_text(json.dumps(reference, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
