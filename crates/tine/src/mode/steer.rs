//! Which acceptor a client goes to: the one of the processor that it arrives at, so that it is accepted and served where its
//! packets are. Pure: processors in, a program for the kernel out.

use tine_os::steer::Step;

/// Steers clients among acceptors, of which the first has the first of these processors, and so on. A client that arrives at a
/// processor without an acceptor goes to one all the same, and always to the same.
pub(crate) fn steering(processors: &[usize]) -> Vec<Step> {
    let acceptors = processors.len() as u32;
    let own =
        processors.iter().zip(0..).map(|(number, socket)| Step::IfEqual { number: *number as u32, socket });
    // Most machines number their processors from 0 on, and then the remainder says it all.
    let plain = processors.iter().copied().eq(0..processors.len());
    let own: Vec<_> = own.filter(|_| !plain).collect();
    [&[Step::LoadProcessor], &own[..], &[Step::Remainder(acceptors.max(1)), Step::Go]].concat()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// What the kernel would do.
    fn goes(steps: &[Step], processor: u32) -> u32 {
        let mut number = 0;
        for step in steps {
            match step {
                Step::LoadProcessor => number = processor,
                Step::IfEqual { number: other, socket } if number == *other => return *socket,
                Step::IfEqual { .. } => {}
                Step::Remainder(by) => number %= by,
                Step::Go => return number,
            }
        }
        panic!("a program without an end");
    }

    proptest! {
        #[test]
        fn whoever_arrives_at_an_acceptors_processor_goes_to_it_and_others_to_one_that_there_is(
            processors in prop::collection::btree_set(0usize..512, 1..64),
            elsewhere in 0u32..1024,
        ) {
            let processors: Vec<_> = processors.into_iter().collect();
            let steps = steering(&processors);
            for (at, processor) in processors.iter().enumerate() {
                prop_assert_eq!(goes(&steps, *processor as u32), at as u32);
            }
            prop_assert!(goes(&steps, elsewhere) < processors.len() as u32);
        }

        #[test]
        fn with_processors_from_0_on_each_acceptor_has_its_share_of_all_others(count in 1u32..64) {
            let steps = steering(&(0..count as usize).collect::<Vec<_>>());
            prop_assert_eq!(steps.len(), 3);
            let all: BTreeSet<_> = (count..2 * count).map(|processor| goes(&steps, processor)).collect();
            prop_assert_eq!(all.len(), count as usize);
        }
    }
}
