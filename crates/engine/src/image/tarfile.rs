//! Reads tar archives as a stream: ustar, GNU (long names, base-256, sparse) and PAX (binary-safe values, sparse).
//! Everything a header may ask for is bounded here. Knows no policy: `entry` decides what a member may do.

use super::tarhead::{self, BLOCK, Header, Pax};
use std::io::{self, Read};

/// All extended headers of one member together.
pub const EXTENSION_BYTES_MAX: u64 = 1 << 20;
/// Extended headers before one member.
const EXTENSION_COUNT_MAX: usize = 16;
/// Length of one member; what is larger is a forged header, and sums of such lengths would overflow.
const MEMBER_BYTES_MAX: u64 = 1 << 50;
/// Pieces of one sparse file.
pub const SPARSE_PIECES_MAX: usize = 1 << 16;

/// One archive member with every extension applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    pub path: Vec<u8>,
    pub link: Vec<u8>,
    /// The type flag of the header, `0` in very old archives.
    pub kind: u8,
    /// Permission bits only.
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    /// Length of the file; for sparse files with the holes.
    pub size: u64,
    /// Seconds and nanoseconds.
    pub mtime: (i64, u32),
    pub device: (u64, u64),
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where the stored bytes belong; `None` = the whole file is stored.
    pub sparse: Option<Vec<Piece>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    pub offset: u64,
    pub length: u64,
}

/// `Read` yields the stored data of the current member.
pub struct TarReader<R> {
    inner: R,
    /// Stored bytes of the current member not read yet.
    left: u64,
    padding: u64,
    ended: bool,
}

impl<R: Read> TarReader<R> {
    pub fn new(inner: R) -> Self {
        Self { inner, left: 0, padding: 0, ended: false }
    }

    /// The next member, `None` at the end mark or at the end of the stream.
    pub fn next_member(&mut self) -> io::Result<Option<Member>> {
        self.skip_rest()?;
        let mut pax = Pax::default();
        let (mut long_name, mut long_link) = (None, None);
        let mut extension_bytes = 0;
        for _ in 0..EXTENSION_COUNT_MAX {
            let Some(header) = self.read_header()? else { return Ok(None) };
            if !matches!(header.kind, b'x' | b'g' | b'L' | b'K') {
                return self.member(header, pax, long_name, long_link).map(Some);
            }
            extension_bytes += header.size;
            let data = self.read_extension(header.size, extension_bytes)?;
            match header.kind {
                b'x' => pax.extend(&data)?,
                b'L' => long_name = Some(tarhead::until_nul(&data).to_vec()),
                b'K' => long_link = Some(tarhead::until_nul(&data).to_vec()),
                // Global headers hold comments in practice; nothing they say may move a file.
                _ => {}
            }
        }
        Err(bad("too many extended headers before one member"))
    }

    /// Reads what follows the end mark, so that a digest over the stream sees every byte.
    pub fn drain(mut self) -> io::Result<()> {
        io::copy(&mut self.inner, &mut io::sink()).map(|_| ())
    }

    fn member(&mut self, header: Header, pax: Pax, name: Option<Vec<u8>>, link: Option<Vec<u8>>) -> io::Result<Member> {
        let stored = pax.size.unwrap_or(header.size);
        let has_data = matches!(header.kind, 0 | b'0' | b'7' | b'S');
        if stored > MEMBER_BYTES_MAX {
            return Err(bad("a member claims an impossible length"));
        }
        self.left = if has_data { stored } else { 0 };
        // Links and directories may carry a size that means nothing: no data follows them.
        self.padding = padding(self.left);
        let mut member = Member {
            path: pax.path.or(name).unwrap_or(header.path),
            link: pax.link.or(link).unwrap_or(header.link),
            kind: header.kind,
            mode: header.mode,
            uid: pax.uid.unwrap_or(header.uid),
            gid: pax.gid.unwrap_or(header.gid),
            size: self.left,
            mtime: pax.mtime.unwrap_or((header.mtime, 0)),
            device: header.device,
            xattrs: pax.xattrs,
            sparse: None,
        };
        if header.kind == b'S' {
            let (mut pieces, mut more) = (header.sparse, header.sparse_continues);
            while more {
                let block = self.read_block()?.ok_or_else(|| bad("the archive ends inside a sparse map"))?;
                more = tarhead::sparse_block(&block, &mut pieces)?;
                check_pieces(pieces.len())?;
            }
            member.size = header.sparse_size;
            member.sparse = Some(pieces);
        } else if let Some(sparse) = pax.sparse {
            member.path = sparse.name.unwrap_or(member.path);
            member.size = sparse.size.ok_or_else(|| bad("a sparse file without its size"))?;
            member.sparse = Some(if sparse.map_in_data { self.read_sparse_map()? } else { sparse.pieces });
        }
        check_sparse(&member, self.left)?;
        Ok(member)
    }

    /// PAX sparse 1.0: decimal lines before the data, padded to a block.
    fn read_sparse_map(&mut self) -> io::Result<Vec<Piece>> {
        let mut lines = tarhead::DecimalLines::default();
        loop {
            let mut block = [0; BLOCK];
            if self.left < BLOCK as u64 {
                return Err(bad("the archive ends inside a sparse map"));
            }
            self.read_exact(&mut block)?;
            if let Some(pieces) = lines.feed(&block)? {
                return Ok(pieces);
            }
        }
    }

    fn skip_rest(&mut self) -> io::Result<()> {
        let rest = self.left + self.padding;
        let skipped = io::copy(&mut (&mut self.inner).take(rest), &mut io::sink())?;
        (self.left, self.padding) = (0, 0);
        if skipped == rest { Ok(()) } else { Err(bad("the archive ends in the middle of a member")) }
    }

    fn read_header(&mut self) -> io::Result<Option<Header>> {
        if self.ended {
            return Ok(None);
        }
        match self.read_block()? {
            Some(block) if block.iter().any(|b| *b != 0) => Header::parse(&block).map(Some),
            _ => {
                self.ended = true;
                Ok(None)
            }
        }
    }

    fn read_block(&mut self) -> io::Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.inner.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(bad("the archive ends in the middle of a header")),
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Some(block))
    }

    fn read_extension(&mut self, size: u64, total: u64) -> io::Result<Vec<u8>> {
        if size > EXTENSION_BYTES_MAX || total > EXTENSION_BYTES_MAX {
            return Err(bad(format!("extended headers of one member exceed {EXTENSION_BYTES_MAX} bytes")));
        }
        let mut data = Vec::new();
        (&mut self.inner).take(size).read_to_end(&mut data)?;
        if data.len() as u64 != size {
            return Err(bad("the archive ends inside an extended header"));
        }
        (self.left, self.padding) = (0, padding(size));
        self.skip_rest()?;
        Ok(data)
    }
}

impl<R: Read> Read for TarReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if wanted == 0 {
            return Ok(0);
        }
        match self.inner.read(&mut buffer[..wanted])? {
            0 => Err(bad("the archive ends in the middle of a member")),
            n => {
                self.left -= n as u64;
                Ok(n)
            }
        }
    }
}

/// Pieces must be ordered, inside the file, and stored completely.
fn check_sparse(member: &Member, stored: u64) -> io::Result<()> {
    let Some(pieces) = &member.sparse else { return Ok(()) };
    check_pieces(pieces.len())?;
    let (mut end, mut sum) = (0u64, 0u64);
    for piece in pieces {
        let piece_end = piece.offset.checked_add(piece.length).ok_or_else(|| bad("a sparse map overflows"))?;
        if piece.offset < end || piece_end > member.size {
            return Err(bad("a sparse map is out of order or leaves its file"));
        }
        (end, sum) = (piece_end, sum + piece.length);
    }
    if sum > stored { Err(bad("a sparse map names more data than is stored")) } else { Ok(()) }
}

fn check_pieces(count: usize) -> io::Result<()> {
    if count <= SPARSE_PIECES_MAX { Ok(()) } else { Err(bad(format!("more than {SPARSE_PIECES_MAX} sparse pieces"))) }
}

fn padding(size: u64) -> u64 {
    (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64
}

pub(super) fn bad(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.into())
}
