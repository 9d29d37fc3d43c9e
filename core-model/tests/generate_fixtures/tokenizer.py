"""CLIP's tokenizer under the configurations that checkpoints carry, with placeholders.

Writes ../fixtures/clip-tokenizer/variants.json and ../fixtures/tokenizer-json/ (a small vocabulary
as transformers 5 saves it, in one tokenizer.json). Run with transformers installed:

    python core-model/tests/generate_fixtures/tokenizer.py
"""

import json
import pathlib
import shutil
import tempfile

import tokenizers
import transformers

FIXTURES = pathlib.Path(__file__).parent.parent / "fixtures"
CLIP = FIXTURES / "clip-tokenizer"
VOCABULARY = FIXTURES.parents[1] / "assets" / "clip-tokenizer"
SINGLE = FIXTURES / "tokenizer-json"
BOS, EOS = "<|startoftext|>", "<|endoftext|>"
PLACEHOLDERS = ["<Robot>", "<robot>-two", "sks-dog", "ünïcode", "my rare toy"]
TEXTS = [
    "a photo of a <robot>",
    "a photo of a <ROBOT>, a <Robot>-two and <robot>-three!",
    "a<robot>b",
    "<robot><robot>",
    "sks-dogs, SKS-DOG and sks - dog",
    "ÜNÏCODE or u\u0308ni\u0308code",
    "my  rare\n toy; my rare toys",
    "wow! a dog!! hey !",
    "!",
    f"a {EOS} b",
    f"a {EOS.upper()} b {BOS}c",
    "<|endof text|>",
    "日本の猫 <robot> が走る",
    "",
    " \t\n ",
    "word " * 74 + "<robot>",
    "word " * 75 + "<robot>",
    "word " * 73 + "last!",
    "word " * 80,
    "\u00a0\u3000\ufeff\x00x",
    "don't they're I'LL 12345 3.14 #hash @me",
    "İstanbul ΣΑΣ ǅ ﬁ",
]


def token(content, normalized=True, typed=False):
    flags = {"content": content, "lstrip": False, "normalized": normalized, "rstrip": False, "single_word": False}
    return {"__type": "AddedToken", **flags} if typed else flags


def configuration(pad, typed=True):
    names = {"bos_token": BOS, "eos_token": EOS, "unk_token": EOS}
    config = {name: token(content, typed=typed) for name, content in names.items()}
    return {**config, "pad_token": pad, "model_max_length": 77, "tokenizer_class": "CLIPTokenizer", "do_lower_case": True}


def special_map(pad):
    return {"bos_token": token(BOS), "eos_token": token(EOS), "pad_token": pad, "unk_token": token(EOS)}


def variants():
    """name -> files of the folder beside the vocabulary"""
    listed = {"49406": token(BOS), "49407": token(EOS)}
    listed = {key: {**value, "special": True} for key, value in listed.items()}
    plain = {"bos_token": BOS, "eos_token": EOS, "unk_token": EOS, "model_max_length": 77}
    return {
        "no-files": {},
        "stable-diffusion-1": {"tokenizer_config.json": configuration(EOS), "special_tokens_map.json": special_map(EOS)},
        "stable-diffusion-2": {"tokenizer_config.json": configuration(EOS), "special_tokens_map.json": special_map("!")},
        "listed": {
            "tokenizer_config.json": {**plain, "pad_token": "!", "added_tokens_decoder": {
                **listed, "0": {**token("!", False), "special": True}}},
            "special_tokens_map.json": special_map(EOS),
        },
        "short": {"tokenizer_config.json": {**plain, "pad_token": EOS, "model_max_length": 20}},
        "grown": {"tokenizer_config.json": {**plain, "pad_token": EOS}, "added_tokens.json": {"<old>": 49408, "<Older>": 49409}},
    }


def encode(tokenizer, texts, length):
    ids = tokenizer(texts, padding="max_length", max_length=length, truncation=True)["input_ids"]
    return [{"text": text, "ids": row} for text, row in zip(texts, ids)]


def write_variants():
    written = []
    for name, files in variants().items():
        with tempfile.TemporaryDirectory() as folder:
            for file in ("vocab.json", "merges.txt"):
                shutil.copy(VOCABULARY / file, folder)
            for file, content in files.items():
                (pathlib.Path(folder) / file).write_text(json.dumps(content))
            tokenizer = transformers.CLIPTokenizer.from_pretrained(folder)
        length = min(tokenizer.model_max_length, 77)
        size = len(tokenizer)
        for placeholder in PLACEHOLDERS:
            assert tokenizer.add_tokens(placeholder) == 1
        texts = TEXTS + ["an <old> and an <OLDER> thing"]
        written.append({"name": name, "files": files, "length": length, "vocab_size": size,
                        "placeholders": PLACEHOLDERS, "cases": encode(tokenizer, texts, length)})
    (CLIP / "variants.json").write_text(json.dumps(written, ensure_ascii=False, separators=(",", ":")) + "\n")


def write_single():
    """A vocabulary trained on TEXTS, with one placeholder that an earlier run added."""
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trained = transformers.CLIPTokenizer(vocab=None, merges=None)._tokenizer
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=600, special_tokens=[], end_of_word_suffix="</w>", show_progress=False,
        initial_alphabet=sorted(alphabet),
    )
    trained.train_from_iterator(TEXTS * 3, trainer)
    model = json.loads(trained.to_str())["model"]
    vocabulary = dict(model["vocab"])
    for letter in sorted(alphabet):
        vocabulary.setdefault(letter + "</w>", len(vocabulary))
    for special in (BOS, EOS):
        vocabulary.setdefault(special, len(vocabulary))
    merges = [tuple(merge) for merge in model["merges"]]
    tokenizer = transformers.CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=24)
    tokenizer.add_tokens("<kept>")
    shutil.rmtree(SINGLE, ignore_errors=True)
    tokenizer.save_pretrained(SINGLE)
    tokenizer = transformers.CLIPTokenizer.from_pretrained(SINGLE)
    size = len(tokenizer)
    tokenizer.add_tokens("<Robot>")
    case = {"name": "tokenizer-json", "length": 24, "vocab_size": size, "placeholders": ["<Robot>"],
            "cases": encode(tokenizer, [*TEXTS, "a <kept> toy"], 24)}
    (SINGLE / "cases.json").write_text(json.dumps(case, ensure_ascii=False, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    write_variants()
    write_single()
