"""A packaged model's tokenizer after the conversion reads by words, whichever transformers read it out of the GGUF file."""

from pathlib import Path

from minilima.train.convert import merged_by_scores

TOKENS = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "a", "b", "▁", "ab", "▁ab", "abab", "\n\n"]
CONTROL, NORMAL, USER_DEFINED = 3, 1, 4


def written(file: Path) -> Path:
    """A GGUF file with a vocabulary and scores, as Gemma has: pieces of a higher score merge first."""
    from gguf import GGUFWriter

    writer = GGUFWriter(file, "gemma3")
    writer.add_token_list(TOKENS)
    writer.add_token_scores([-float(number) for number in range(len(TOKENS))])
    writer.add_token_types([*[CONTROL] * 5, *[NORMAL] * 6, USER_DEFINED])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return file


def test_merges_follow_from_the_scores_of_a_gguf_file(tmp_path: Path) -> None:
    from transformers import GemmaTokenizer

    tokenizer = merged_by_scores(GemmaTokenizer, written(tmp_path / "tiny.gguf"))
    tokenizer.save_pretrained(tmp_path / "whole")
    again = GemmaTokenizer.from_pretrained(tmp_path / "whole")
    assert again.convert_ids_to_tokens(again("abab ab\n\nb")["input_ids"]) == ["<bos>", "abab", "▁ab", "\n\n", "b"]
    assert again.decode(again("ab ab", add_special_tokens=False)["input_ids"]) == "ab ab"
