//! Where a cell's root file system comes from: archives, the image store, Alpine releases, the host's own folders.
//!
//! [`archive`] reads hostile bytes, [`unpack`] writes them below a directory descriptor, [`images`] keeps images and unpacked layers,
//! [`copy`] copies a whole root, [`alpine`] and [`fetch`] get releases over the network, [`root`] has the `host` image and the thin top layer every cell gets.
//! Nothing here prints, asks, or reads `$HOME` or the environment.

pub mod alpine;
pub mod archive;
pub mod copy;
pub mod fetch;
pub mod images;
pub mod root;
pub mod unpack;
