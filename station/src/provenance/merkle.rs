//! The Merkle tree of RFC 6962 (section 2.1) with SHA-256: its root, and the path that proves one leaf. Pure.

use sha2::{Digest, Sha256};

/// A node of the tree, 32 bytes.
pub type Hash = [u8; 32];

/// The tree's root. The root of no leaves is the hash of nothing.
pub fn root(leaves: &[impl AsRef<[u8]>]) -> Hash {
    match leaves {
        [] => Sha256::digest([]).into(),
        [leaf] => leaf_hash(leaf.as_ref()),
        leaves => {
            let (left, right) = leaves.split_at(split(leaves.len()));
            node_hash(&root(left), &root(right))
        }
    }
}

/// The nodes beside the way from leaf `index` up to the root; `None` where there is no such leaf.
pub fn path(leaves: &[impl AsRef<[u8]>], index: usize) -> Option<Vec<Hash>> {
    if index >= leaves.len() {
        return None;
    }
    if leaves.len() == 1 {
        return Some(Vec::new());
    }
    let at = split(leaves.len());
    let (left, right) = leaves.split_at(at);
    let (mut way, beside) =
        if index < at { (path(left, index)?, root(right)) } else { (path(right, index - at)?, root(left)) };
    way.push(beside);
    Some(way)
}

/// The root of a tree of `size` leaves whose leaf `index` is `leaf`, if `path` leads there (RFC 9162, section
/// 2.1.3.2); `None` where it has not the length that such a tree asks for.
pub fn root_from(leaf: &[u8], index: u64, size: u64, path: &[Hash]) -> Option<Hash> {
    let mut last = size.checked_sub(1).filter(|last| index <= *last)?;
    let (mut at, mut hash) = (index, leaf_hash(leaf));
    for beside in path {
        if last == 0 {
            return None;
        }
        if at & 1 == 1 || at == last {
            hash = node_hash(beside, &hash);
            // The last leaf may have gone up some levels alone.
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, beside);
        }
        at >>= 1;
        last >>= 1;
    }
    (last == 0).then_some(hash)
}

/// The largest power of two below `leaves`, of which there are two at least.
fn split(leaves: usize) -> usize {
    1 << (leaves - 1).ilog2()
}

fn leaf_hash(leaf: &[u8]) -> Hash {
    Sha256::new().chain_update([0]).chain_update(leaf).finalize().into()
}

fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;
    use proptest::prelude::*;

    use super::*;

    /// The leaves and roots of the Certificate Transparency project's own tests.
    #[test]
    fn roots_are_those_that_certificate_transparency_computes() {
        let leaves: [&[u8]; 8] = [
            b"",
            b"\x00",
            b"\x10",
            b"\x20\x21",
            b"\x30\x31",
            b"\x40\x41\x42\x43",
            b"\x50\x51\x52\x53\x54\x55\x56\x57",
            b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
        ];
        let roots = [
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
            "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
            "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
        ];
        for (size, expected) in roots.into_iter().enumerate() {
            assert_eq!(HEXLOWER.encode(&root(&leaves[..size])), expected, "of {size} leaves");
        }
    }

    fn leaves(size: u64) -> Vec<[u8; 8]> {
        (0..size).map(u64::to_be_bytes).collect()
    }

    #[test]
    fn every_leaf_is_proven_by_its_path_and_at_no_other_place() {
        // All shapes up to 64 leaves, and those round a power of two.
        for size in (1..=66).chain(127..=129) {
            let leaves = leaves(size);
            let root = root(&leaves);
            for index in 0..size {
                let at = usize::try_from(index).unwrap();
                let path = path(&leaves, at).unwrap();
                assert_eq!(root_from(&leaves[at], index, size, &path), Some(root), "{index} of {size}");
                assert_ne!(root_from(&leaves[at], index + 1, size, &path), Some(root), "{index} of {size}");
            }
            assert_eq!(path(&leaves, leaves.len()), None);
        }
    }

    proptest! {
        #[test]
        fn a_path_proves_its_leaf_and_nothing_that_was_changed(
            size in 1..200u64, index: prop::sample::Index, node: prop::sample::Index, bit in 0..256usize,
        ) {
            let leaves = leaves(size);
            let (root, at) = (root(&leaves), index.index(leaves.len()));
            let (index, path) = (at as u64, path(&leaves, at).unwrap());
            let proves = |leaf: &[u8], path: &[Hash]| root_from(leaf, index, size, path) == Some(root);
            prop_assert!(proves(&leaves[at], &path));

            let mut leaf = leaves[at];
            leaf[bit / 32] ^= 1 << (bit % 8);
            prop_assert!(!proves(&leaf, &path));
            if let Some(last) = path.len().checked_sub(1) {
                let mut changed = path.clone();
                changed[node.index(path.len())][bit / 8] ^= 1 << (bit % 8);
                prop_assert!(!proves(&leaves[at], &changed));
                prop_assert!(!proves(&leaves[at], &path[..last]), "shorter");
            }
            let longer = [&path[..], &[[0; 32]]].concat();
            prop_assert!(!proves(&leaves[at], &longer));
        }
    }
}
