"""Write what OpenCLIP computes of small networks, for tests that do without it.

    pip install open_clip_torch
    python scripts/make_open_clip_goldens.py [tests/goldens/open_clip.json]

For each of tests/contrastive_models.py: the tensors of OpenCLIP's own class with their
shapes, and the features of some images and texts under weights that are drawn by name.
"""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Write the file."""
    sys.path.insert(0, str(ROOT / "tests"))
    import open_clip
    import torch
    from contrastive_models import MODELS, drawn, pixels, token_ids

    found = {}
    for name, config in MODELS.items():
        model = open_clip.CLIP(**config).eval()
        shapes = {key: list(t.shape) for key, t in model.state_dict().items()}
        drawn_by_name = {
            key: torch.from_numpy(drawn(key, shape)) for key, shape in shapes.items()
        }
        model.load_state_dict(drawn_by_name)
        with torch.no_grad():
            images = torch.from_numpy(pixels()).permute(0, 3, 1, 2)
            found[name] = {
                "shapes": shapes,
                "image_features": model.encode_image(images).tolist(),
                "text_features": model.encode_text(
                    torch.from_numpy(token_ids())
                ).tolist(),
            }
    place = sys.argv[1:] or [ROOT / "tests" / "goldens" / "open_clip.json"]
    Path(place[0]).write_text(json.dumps(found) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
