//! Fair division of an amount.

/// Divides `total` evenly, but gives nobody more than wanted: each share is at most its want, and
/// together they are the lesser of `total` and the sum of the wants.
pub fn fair_shares(total: u64, wants: &[u64]) -> Vec<u64> {
    let mut shares = vec![0; wants.len()];
    let mut order: Vec<usize> = (0..wants.len()).collect();
    order.sort_by_key(|index| wants[*index]);
    let mut left = total;
    for (done, index) in order.into_iter().enumerate() {
        let others = (wants.len() - done) as u64;
        shares[index] = wants[index].min(left / others);
        left -= shares[index];
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_even_and_within_wants_and_total() {
        for (total, wants, shares) in [
            (90, &[90, 90, 90][..], &[30, 30, 30][..]),
            (90, &[10, 90], &[10, 80]),
            (90, &[10, 10], &[10, 10]),
            (10, &[7, 7, 7], &[3, 3, 4]),
            (0, &[5], &[0]),
            (5, &[], &[]),
        ] {
            assert_eq!(fair_shares(total, wants), shares, "{total} among {wants:?}");
        }
    }
}
