//! Layers, releases and their sources.

use config::layers::{
    Layer, LayerContent, LayerQuery, LayerSource, LoadedFixture, NewFixture, Release, Update,
    UpdateRequest,
};
use config::{LayerName, ReleaseName};

use crate::{Client, Created, Result};
use config::uri::percent_encode;

impl Client {
    /// Returns all releases.
    pub fn releases(&self) -> Result<Vec<Release>> {
        self.get("releases")
    }

    /// Returns one release.
    pub fn layer_release(&self, name: &ReleaseName) -> Result<Release> {
        self.get(&format!("releases/{name}"))
    }

    /// Adds or replaces a release.
    pub fn add_release(&self, release: &Release) -> Result<Created<Release>> {
        self.put(&format!("releases/{}", release.name), release)
    }

    /// Removes a release that was added.
    pub fn remove_release(&self, name: &ReleaseName) -> Result<()> {
        self.delete(&format!("releases/{name}"))
    }

    /// Returns the layers of a query.
    pub fn layers(&self, query: &LayerQuery) -> Result<Vec<Layer>> {
        let query = serde_urlencoded::to_string(query)?;
        self.get(&format!("layers?{query}"))
    }

    /// Returns a layer as it belongs to a release, or to each one.
    pub fn layer(
        &self,
        name: &LayerName,
        release: Option<&ReleaseName>,
    ) -> Result<Vec<LayerContent>> {
        self.get(&layer_path(name, release))
    }

    /// Adds or replaces a layer.
    pub fn add_layer(&self, layer: &Layer) -> Result<Created<Layer>> {
        self.put(&format!("layers/{}", layer.name), layer)
    }

    /// Removes a layer that was added.
    pub fn remove_layer(&self, name: &LayerName, release: Option<&ReleaseName>) -> Result<()> {
        self.delete(&layer_path(name, release))
    }

    /// Returns the sources of layers.
    pub fn layer_sources(&self) -> Result<Vec<LayerSource>> {
        self.get("layer-sources")
    }

    /// Updates the layers from one layer index, or from all. Waits for as long as they take.
    pub fn update_layers(&self, request: &UpdateRequest) -> Result<Vec<Update>> {
        Ok(self.create_slowly("layer-sources/update", request)?.value)
    }

    /// Loads a fixture.
    pub fn load_fixture(&self, fixture: &NewFixture) -> Result<LoadedFixture> {
        self.post("layer-sources/fixtures", fixture)
    }
}

fn layer_path(name: &LayerName, release: Option<&ReleaseName>) -> String {
    let release = release.map(|release| percent_encode(release.as_str()));
    let query = release.map_or_else(String::new, |release| format!("?release={release}"));
    format!("layers/{name}{query}")
}
