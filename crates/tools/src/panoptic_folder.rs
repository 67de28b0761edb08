//! A folder in the layout of COCO panoptic while it is written: `panoptic/`, then `panoptic.json`, without which it is not finished.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use eomt_edge_host::files;
use serde_json::{Value, json};

use super::annotations::coco_panoptic;

/// Gets pictures one by one; see the [module](self).
pub(crate) struct PanopticFolder {
    directory: PathBuf,
    images: Vec<Value>,
    annotations: Vec<Value>,
}

impl PanopticFolder {
    /// # Errors
    /// When the directory holds `what` already, i.e. a `panoptic.json`, or cannot be written.
    pub fn begin(directory: &Path, what: &str) -> Result<PanopticFolder> {
        let list = directory.join("panoptic.json");
        if list.exists() {
            bail!("{}: there is a {what} already", list.display());
        }
        files::make_directory(&directory.join("panoptic"))?;
        Ok(PanopticFolder { directory: directory.to_owned(), images: Vec::new(), annotations: Vec::new() })
    }

    /// The file name of the next picture's segments.
    pub fn next_name(&self) -> String {
        format!("{:06}.png", self.images.len())
    }

    /// Adds the picture `name`: ids of its pixels, `[height, width]`, and its `segments_info`.
    pub fn add(&mut self, name: &str, (width, height): (u32, u32), ids: impl IntoIterator<Item = u32>, segments: Vec<Value>) -> Result<()> {
        let (id, png) = (self.images.len(), self.next_name());
        files::write(&self.directory.join("panoptic").join(&png), &files::png_rgb(&coco_panoptic(ids), width, height)?)?;
        self.images.push(json!({ "id": id, "file_name": name, "width": width, "height": height }));
        self.annotations.push(json!({ "image_id": id, "file_name": png, "segments_info": segments }));
        Ok(())
    }

    /// Writes the JSON.
    pub fn finish(self, categories: Vec<Value>) -> Result<()> {
        let document = json!({ "images": self.images, "annotations": self.annotations, "categories": categories });
        files::write(&self.directory.join("panoptic.json"), document.to_string().as_bytes())
    }
}
