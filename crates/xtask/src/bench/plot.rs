//! The ratios as bars.

use super::cases::CASES;
use super::results::Results;

const LABEL_PX: f64 = 240.0;
/// The width of etcd's figure, which is 1.
const UNIT_PX: f64 = 400.0;
/// Where a bar ends, however long it should be.
const LONGEST: f64 = 1.25;
const ROW_PX: f64 = 30.0;
const TOP_PX: f64 = 40.0;

/// For each case two bars: our share of etcd's CPU time, and of its p99.
pub(super) fn svg(results: &Results) -> String {
    let watch = ("watch", "watch, a delivered event");
    let cases = CASES
        .iter()
        .map(|case| (case.name, case.about))
        .chain([watch]);
    let mut rows = String::new();
    let mut bottom = TOP_PX;
    for (name, about) in cases {
        let (cpu, p99) = (results.ratio(name, "cpu_us"), results.ratio(name, "p99_ms"));
        let (Some(cpu), Some(p99)) = (cpu, p99) else {
            continue;
        };
        rows.push_str(&format!(
            "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{about}</text>\n",
            LABEL_PX - 8.0,
            bottom + 17.0
        ));
        rows.push_str(&bar(cpu, bottom + 2.0, "#1f6f8b"));
        rows.push_str(&bar(p99, bottom + 14.0, "#99c4d3"));
        bottom += ROW_PX;
    }
    let (one, width) = (LABEL_PX + UNIT_PX, LABEL_PX + LONGEST * UNIT_PX + 60.0);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{:.0}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"{LABEL_PX:.0}\" y=\"14\" fill=\"#1f6f8b\">CPU time per operation</text>\n\
         <text x=\"{:.0}\" y=\"14\" fill=\"#6a9fb0\">p99 latency</text>\n\
         <text x=\"{one:.0}\" y=\"30\" text-anchor=\"middle\">etcd = 1</text>\n{rows}\
         <line x1=\"{one:.0}\" x2=\"{one:.0}\" y1=\"{TOP_PX:.0}\" y2=\"{bottom:.0}\" stroke=\"#c0392b\"/>\n\
         </svg>\n",
        bottom + 10.0,
        LABEL_PX + 150.0,
    )
}

fn bar(ratio: f64, y: f64, colour: &str) -> String {
    let width = ratio.min(LONGEST) * UNIT_PX;
    format!(
        "<rect x=\"{LABEL_PX:.0}\" y=\"{y:.0}\" width=\"{width:.1}\" height=\"11\" fill=\"{colour}\"/>\
         <text x=\"{:.0}\" y=\"{:.0}\" font-size=\"9\">{ratio:.2}</text>\n",
        LABEL_PX + width + 4.0,
        y + 9.0
    )
}

#[cfg(test)]
mod tests {
    use super::bar;

    #[test]
    fn a_bar_is_as_long_as_its_ratio_and_tells_it() {
        assert!(bar(0.25, 0.0, "#000").contains("width=\"100.0\""));
        let long = bar(3.0, 0.0, "#000");
        assert!(
            long.contains("width=\"500.0\"") && long.contains(">3.00<"),
            "{long}"
        );
    }
}
