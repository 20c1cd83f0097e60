import pytest

from genbench.core.units import Images


@pytest.mark.parametrize("text", ["1000000", "1e6", "1M", "1m", "1000k", "1_000_000", "1,000,000", 1e6, 1_000_000])
def test_numbers_of_images_are_parsed_with_suffixes(text):
    assert Images(text) == 1_000_000


@pytest.mark.parametrize(
    "text",
    ["", "many", "0", "-5", "1.5", "nan", "1e", "inf", "1,5M", "1_5", "12,50", "1,,000", "1kM", "2mk", "k", "1,000.5"],
)
def test_other_text_than_a_number_of_images_is_refused(text):
    with pytest.raises(ValueError, match="is not a number of images"):
        Images(text)
