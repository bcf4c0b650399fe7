//! The format of SFTP packets: numbers are big-endian, texts carry their length. Pure; what is cut short is no packet.

/// What is left of a packet.
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    pub fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|b| b[0])
    }

    pub fn u32(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    pub fn u64(&mut self) -> Option<u64> {
        Some(u64::from_be_bytes(self.take(8)?.try_into().ok()?))
    }

    pub fn text(&mut self) -> Option<&'a [u8]> {
        let n = self.u32()?;
        self.take(n as usize)
    }

    /// A file name: as bytes, never with a NUL.
    pub fn path(&mut self) -> Option<&'a std::path::Path> {
        use std::os::unix::ffi::OsStrExt;
        let name = self.text()?;
        let name = if name.is_empty() { b"." } else { name };
        (!name.contains(&0)).then(|| std::path::Path::new(std::ffi::OsStr::from_bytes(name)))
    }
}

/// A packet in the making.
#[derive(Default)]
pub struct Writer(pub Vec<u8>);

impl Writer {
    /// An answer of this kind to the request of this number.
    pub fn answer(kind: u8, id: u32) -> Self {
        Self(vec![kind]).u32(id)
    }

    pub fn u32(mut self, n: u32) -> Self {
        self.0.extend_from_slice(&n.to_be_bytes());
        self
    }

    pub fn u64(mut self, n: u64) -> Self {
        self.0.extend_from_slice(&n.to_be_bytes());
        self
    }

    pub fn text(mut self, text: &[u8]) -> Self {
        self.0.extend_from_slice(&u32::try_from(text.len()).unwrap_or(0).to_be_bytes());
        self.0.extend_from_slice(text);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(id: u32, big: u64, text: Vec<u8>) {
            let packet = Writer::answer(7, id).u64(big).text(&text).0;
            let mut reader = Reader(&packet);
            prop_assert_eq!((reader.u8(), reader.u32(), reader.u64()), (Some(7), Some(id), Some(big)));
            prop_assert_eq!(reader.text(), Some(&text[..]));
            prop_assert_eq!((reader.u8(), reader.text()), (None, None));
        }

        #[test]
        fn no_bytes_break_it(bytes: Vec<u8>) {
            let mut reader = Reader(&bytes);
            while reader.path().is_some() {}
            let _ = (reader.u32(), reader.u64(), reader.text());
        }
    }
}
