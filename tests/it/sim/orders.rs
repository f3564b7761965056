//! Every order of what can happen.

/// Has three of all happen in every order, with each more than once, from each beginning; then looks at how
/// that ends. What has happened so far, the last of it now, is told to both. Returns how many orders there were.
pub(crate) fn of_three<Rig: Clone, Happens: Copy>(
    begun: Vec<(Rig, Vec<Happens>)>,
    all: &[Happens],
    happens: impl Fn(&mut Rig, Happens, &[Happens]),
    mut ends: impl FnMut(Rig, &[Happens]),
) -> usize {
    let mut orders = 0;
    let mut stack: Vec<_> = begun
        .into_iter()
        .map(|(rig, done)| (rig, done, 3))
        .collect();
    while let Some((rig, done, left)) = stack.pop() {
        if left == 0 {
            orders += 1;
            ends(rig, &done);
            continue;
        }
        for what in all {
            let (mut next, mut done) = (rig.clone(), done.clone());
            done.push(*what);
            happens(&mut next, *what, &done);
            stack.push((next, done, left - 1));
        }
    }
    orders
}
