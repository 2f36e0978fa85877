//! zstd (RFC 8878) as a `Read`: every frame in turn, skippable ones skipped, checksums and stated sizes verified.

use std::io::{self, BufRead, Read};

use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// Decodes all frames of `source`; anything that is no frame is an error, so nothing can hide behind the last one.
pub(super) struct ZstdReader<B> {
    source: B,
    decoder: FrameDecoder,
    /// Bytes handed out of the frame that is being decoded.
    frame: Option<u64>,
}

impl<B: BufRead> ZstdReader<B> {
    pub(super) fn new(source: B, max_window: u64) -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(max_window);
        Self { source, decoder, frame: None }
    }

    pub(super) fn get_ref(&self) -> &B {
        &self.source
    }

    pub(super) fn get_mut(&mut self) -> &mut B {
        &mut self.source
    }

    /// Starts the next frame; false at the end of the source.
    fn start_frame(&mut self) -> io::Result<bool> {
        while !self.source.fill_buf()?.is_empty() {
            match self.decoder.reset(&mut self.source) {
                Ok(()) => {
                    self.frame = Some(0);
                    return Ok(true);
                }
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    let length = u64::from(length);
                    if io::copy(&mut self.source.by_ref().take(length), &mut io::sink())? != length {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        Ok(false)
    }

    /// The frame is decoded and handed out: does it keep what its header and trailer promised?
    fn check_frame(&mut self, length: u64) -> io::Result<()> {
        // 0 means "not stated" to the decoder; an empty frame that states 0 is right anyway.
        let stated = self.decoder.content_size();
        if stated != 0 && stated != length {
            return Err(io::Error::other(format!("a frame states {stated} bytes and has {length}")));
        }
        if let Some(stored) = self.decoder.get_checksum_from_data()
            && self.decoder.get_calculated_checksum() != Some(stored)
        {
            return Err(io::Error::other("the checksum of a frame is wrong"));
        }
        Ok(())
    }
}

impl<B: BufRead> Read for ZstdReader<B> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let Some(length) = self.frame else {
                if self.start_frame()? {
                    continue;
                }
                return Ok(0);
            };
            if self.decoder.can_collect() > 0 {
                let count = self.decoder.read(buffer)?;
                self.frame = Some(length + count as u64);
                return Ok(count);
            }
            if self.decoder.is_finished() {
                self.check_frame(length)?;
                self.frame = None;
            } else {
                // One block is at most 128 KiB, which bounds what the decoder holds beyond its window.
                self.decoder
                    .decode_blocks(&mut self.source, BlockDecodingStrategy::UptoBlocks(1))
                    .map_err(io::Error::other)?;
            }
        }
    }
}
