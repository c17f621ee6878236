//! Awkward values: what images, comparisons and casts must not lose.

use super::case::{Case, case};
use super::trial::try_all;

const NUMBER: &str = "create table number (id int primary key, f8 float8, f4 float4, n numeric, n2 numeric(20,4), i2 int2, i8 int8, m money);
    insert into number values (1, '-0', '-0', 'NaN', 0.0000, -32768, -9223372036854775808, '-12.34'), (2, '0', '0', '1.0', 1.1000, 32767, 9223372036854775807, 0),
        (3, 'NaN', 'NaN', '1.00', null, 0, 0, null), (4, 'Infinity', '-Infinity', 'Infinity', -1, 1, 1, 1), (5, 5e-324, 1e-45, '-Infinity', 2, 2, 9007199254740993, 2),
        (6, 0.1, 0.1, 123456789012345678901234567890.123456789012345678901234567890, 3, 3, 3, 3), (7, null, null, null, null, null, null, null);";

const MOMENT: &str = "create table moment (id int primary key, ts timestamp, tz timestamptz, d date, t time, ttz timetz, i interval);
    insert into moment values (1, 'infinity', '-infinity', 'infinity', '24:00:00', '23:59:59.999999-15:59', '30 days'), (2, '4713-01-01 BC', '4714-11-24 BC', '4713-01-01 BC', '00:00', '00:00+00', '1 mon'),
        (3, '294276-12-31 23:59:59.999999', '2024-03-31 02:30:00.000001+02', '5874897-12-31', '12:00:00.000001', '12:00+13', '-1 year 2 mons -3 days 04:05:06.789'), (4, null, null, null, null, null, null),
        (5, '2000-01-01 00:00:00.000001', '2000-01-01', '2000-02-29', '01:02:03', '01:02:03+05:30', '720:00:00');";

const OTHER: &str = "create table other (id int primary key, b bit(5), vb bit varying, x xml, r int4range, mr int4multirange, tr tstzrange, ip inet, c cidr, mac macaddr, u uuid,
        by bytea, p point, pg polygon, tv tsvector, tq tsquery, o oid, ch char(5), q \"char\", jp jsonpath, nm name, ls pg_lsn, rc regclass);
    insert into other values (1, b'00101', b'', '<a b=\"1\"> x </a>', '[1,5)', '{[1,2),[5,9)}', '[2020-01-01,)', '10.0.0.1/8', '10.0.0.0/8', '08:00:2b:01:02:03', '00000000-0000-0000-0000-000000000000',
        '', '(1,2)', '((0,0),(1,1),(1,0))', 'a:1A b:2', 'a & !b', 4294967295, 'a', 'x', '$.a[*] ? (@ > 1)', 'nm', '0/16B3748', 'pg_class'),
     (2, b'11111', b'10', 'plain', 'empty', '{}', 'empty', '::1', '::/0', null, 'ffffffff-ffff-ffff-ffff-ffffffffffff', '\\x00ff00', '(-0,0)', null, '', '', 0, '', '', null, '', '0/0', null),
     (3, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null),
     (4, b'00000', b'1', '<?xml version=\"1.0\"?><r/>', '(,)', '{(,)}', '(,infinity]', '192.168.0.1', '1.2.3.4', 'ff:ff:ff:ff:ff:ff', null, '\\xdeadbeef', '(NaN,Infinity)', null, null, null, 1, 'ab   ', '\\', null, 'x', 'FFFFFFFF/FFFFFFFF', 'pg_type');";

const TEXT: &str = "create table prose (id int primary key, t text, v varchar(8), a text[], aa text[]);
    insert into prose values (1, '', '', '{}', null), (2, null, null, '{NULL,\"NULL\",\"\"}', '{{a,b},{c,d}}'), (3, E'tab\\there\\nline \\\\ back', 'ümläut', '[0:1]={x,y}', '{\"a,b\",\"c\\\"d\"}'),
        (4, repeat('😀', 5), 'a''b\"c', '{\" \",\"{}\"}', null), (5, U&'\\FEFF\\200B', '  x  ', array[E'\\\\'], null), (6, '(1,2)', '$1', '{x}', null);";

const TOAST: &str = "create table wide (id int primary key, doc text, keep text, n int);
    alter table wide alter doc set storage external;
    insert into wide select i, repeat(md5(i::text), 3000), repeat('k' || i, 2000), i from generate_series(1, 6) i;";

fn numbers() -> Vec<Case> {
    vec![
        case("negative_zero_h11", NUMBER, "update number set f8 = -f8, f4 = -f4"),
        case("zero_becomes_negative_zero_h11", NUMBER, "update number set f8 = '-0', f4 = '-0' where f8 = 0"),
        case("nan_and_infinity", NUMBER, "update number set f8 = 'NaN', n = 'NaN' where n = 'NaN' or f8 > 1e300"),
        case("scale_changes_h11", NUMBER, "update number set n = n * 1.00, n2 = n2 / 3"),
        case("scale_alone_changes", NUMBER, "update number set n = '1.000' where n = 1"),
        case("numeric_of_sixty_digits", NUMBER, "update number set n = n + 1 where n > 1e20 and n < 'Infinity'"),
        case("end_of_bigint", NUMBER, "update number set i8 = i8 - 1 where i8 > 9007199254740992"),
        case("money", NUMBER, "update number set m = m * 2 + '0.01'::money where m is not null"),
        case("overflow_h24", NUMBER, "update number set i2 = i2 + 1").fails(),
        case("delete_numbers", NUMBER, "delete from number where id <> 5"),
        case("float_in_where", NUMBER, "update number set i2 = 9 where f4 <> 0.1 and f8 = 0.1"),
        case("subnormals", NUMBER, "update number set f8 = f8 * 3, f4 = f4 * 2 where f8 > 0 and f8 < 1e-300"),
        case("division_by_zero_h24", NUMBER, "update number set n = 1 / n2").fails(),
        case("bad_cast_h23", TEXT_BAD, "update bad set n = t::int").fails(),
    ]
}

const TEXT_BAD: &str = "create table bad (id int primary key, t text, n int); insert into bad select i, case i when 7 then 'x' else i::text end from generate_series(1, 9) i";

fn moments() -> Vec<Case> {
    vec![
        case("infinity_and_bc", MOMENT, "update moment set ts = tz, tz = ts where id in (2, 5)"),
        case(
            "interval_arithmetic",
            MOMENT,
            "update moment set i = i * 2, d = d - 1, t = t - interval '1 second' where id > 2",
        ),
        case("thirty_days_are_not_a_month_h4", MOMENT, "update moment set i = '1 mon' where i = '30 days'"),
        case("equal_intervals_differ_h11", MOMENT, "update moment set i = '720:00:00' where i = '1 mon'"),
        case("time_zone_of_the_session", MOMENT, "update moment set ts = tz, d = tz::date where id in (3, 5)")
            .with(&[("timezone", "Asia/Kathmandu")]),
        case(
            "date_style_of_the_session",
            MOMENT,
            "update moment set d = '03/04/2021', ts = '05/06/2021 10:00' where id = 5",
        )
        .with(&[("datestyle", "SQL, DMY")]),
        case("interval_style_of_the_session", MOMENT, "update moment set i = '-1 2:03:04' where id = 3")
            .with(&[("intervalstyle", "sql_standard")]),
        case("delete_moments", MOMENT, "delete from moment where id < 5"),
        case(
            "at_time_zone",
            MOMENT,
            "update moment set tz = ts at time zone 'America/New_York', t = (tz at time zone 'UTC')::time where id = 5",
        ),
        case("extra_float_digits_of_the_session", NUMBER, "update number set n = f8::text::numeric where id = 6")
            .with(&[("extra_float_digits", "0")]),
        case("bytea_output_of_the_session", OTHER, "update other set nm = by::text where id = 4")
            .with(&[("bytea_output", "escape")]),
        case("standard_strings_off", TEXT, "update prose set t = 'a\\\\b\\'c' where id = 1").with(&[
            ("standard_conforming_strings", "off"),
            ("escape_string_warning", "off"),
            ("backslash_quote", "on"),
        ]),
    ]
}

fn others() -> Vec<Case> {
    vec![
        case("bits", OTHER, "update other set b = ~b, vb = vb || b'1'"),
        case(
            "xml_h11",
            OTHER,
            "update other set x = xmlelement(name y, x) where x is not null and xml_is_well_formed_document(x::text)",
        ),
        case("xml_replaced", OTHER, "update other set x = '<q/>'"),
        case(
            "ranges",
            OTHER,
            "update other set r = r * int4range(2, 4), mr = mr + '{[20,30]}', tr = tr + '[2021-01-01,2022-01-01)' where id in (1, 2)",
        ),
        case(
            "network",
            OTHER,
            "update other set ip = ip + 1, c = set_masklen(c, 24), mac = mac & '00:ff:ff:ff:ff:ff' where id in (1, 4)",
        ),
        case("bytes", OTHER, "update other set by = by || '\\x00'::bytea"),
        case("geometry", OTHER, "update other set p = p + point(0, 1), pg = null"),
        case("point_of_nothing", OTHER, "update other set p = null where id <> 2"),
        case("point_as_typed", OTHER, "update other set p = point '(3,4)', pg = polygon '((0,0),(2,2),(2,0))'"),
        case("text_search", OTHER, "update other set tv = tv || 'c:3'::tsvector, tq = tq && 'z'"),
        case(
            "system_types",
            OTHER,
            "update other set o = o::int8 - 1, q = 'y', ls = ls - 1, rc = 'pg_attribute', nm = nm || 'z', jp = '$.b' where o > 0",
        ),
        case("padded_char", OTHER, "update other set ch = trim(ch) || '  ' || id"),
        case("delete_others", OTHER, "delete from other where id <> 3"),
        case("geometry_and_xml_deleted", OTHER, "delete from other where p is not null"),
    ]
}

fn texts() -> Vec<Case> {
    vec![
        case("text_with_everything", TEXT, "update prose set t = t || v, v = left(reverse(v), 3)"),
        case("arrays_of_text", TEXT, "update prose set a = a || null::text, aa = array[a, a] where id <> 1"),
        case("empty_and_null_h4", TEXT, "update prose set t = nullif(t, ''), v = coalesce(v, '')"),
        case("delete_text", TEXT, "delete from prose where id > 1"),
        case("toast_untouched_h29", TOAST, "update wide set n = n + 1 where id % 2 = 0"),
        case("toast_changed_h29", TOAST, "update wide set doc = doc || 'x', keep = reverse(keep)"),
        case("toast_deleted", TOAST, "delete from wide where length(doc) > 10 and id < 5"),
        case("toast_unchanged_h29", TOAST, "update wide set doc = repeat(md5(id::text), 3000) where id < 5"),
        case("toast_compared_frozen", TOAST, "update wide set doc = keep where n = (select max(n) from wide) or n < 3")
            .frozen(),
    ]
}

#[test]
fn awkward_values_are_kept() {
    try_all("value", &[numbers(), moments(), others(), texts()].concat());
}
