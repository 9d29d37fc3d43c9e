//! Resizes pictures as the image processors do: a line `FROM TO WIDTH HEIGHT FILTER` each, the
//! filter by Pillow's number, with tabs between. `benchmarks/pillow.py` compares the results.

use std::error::Error;
use std::io::{BufRead, stdin};
use std::path::Path;

use core_model::image_processor::{Filter, load_image, resize};

fn main() -> Result<(), Box<dyn Error>> {
    for line in stdin().lock().lines() {
        let line = line?;
        let fields: Vec<&str> = line.split('\t').collect();
        let [from, to, width, height, filter] = fields[..] else {
            return Err(format!("{line}: expected FROM, TO, WIDTH, HEIGHT, FILTER").into());
        };
        let filter = Filter::try_from(filter.parse::<u8>()?)?;
        let picture = load_image(Path::new(from))?;
        resize(&picture, width.parse()?, height.parse()?, filter).save(to)?;
    }
    Ok(())
}
