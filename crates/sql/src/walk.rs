//! One walk over PostgreSQL's parse tree that cannot miss a part of it: every message is taken apart
//! field by field without `..`, so that a field added by a newer grammar breaks the build, and a
//! node that is not listed is reported to the visitor, which refuses it.

use pg_query::protobuf::{self as p, a_const};
use pg_query::{Node, NodeEnum};

/// What a walk does on its way. `enter` may replace the node before its children are walked,
/// `leave` after.
pub(crate) trait Visitor {
    /// Before the children.
    fn enter(&mut self, _node: &mut NodeEnum) {}
    /// After the children.
    fn leave(&mut self, _node: &mut NodeEnum) {}
    /// A relation, wherever the grammar puts it.
    fn relation(&mut self, _relation: &mut p::RangeVar) {}
    /// A SELECT, also as an arm of a set operation, which is not a node.
    fn select(&mut self, _select: &mut p::SelectStmt) {}
    /// A statement with its own WITH begins.
    fn open(&mut self, _with: Option<&p::WithClause>) {}
    /// That statement ends.
    fn close(&mut self) {}
    /// A node that this walk does not know, with its name.
    fn unknown(&mut self, _node: &NodeEnum) {}
}

/// Something that can be walked.
pub(crate) trait Walk {
    /// Walks it, children included.
    fn walk(&mut self, visitor: &mut dyn Visitor);
}

macro_rules! leaves {
    ($($leaf:ty),+) => { $(impl Walk for $leaf { fn walk(&mut self, _: &mut dyn Visitor) {} })+ };
}

// `Query` is the planner's form; a raw parse tree never holds one.
leaves!(i32, u32, bool, std::string::String, a_const::Val, p::Query);

impl<T: Walk> Walk for Option<T> {
    fn walk(&mut self, visitor: &mut dyn Visitor) {
        if let Some(inner) = self {
            inner.walk(visitor);
        }
    }
}

impl<T: Walk> Walk for Vec<T> {
    fn walk(&mut self, visitor: &mut dyn Visitor) {
        for item in self {
            item.walk(visitor);
        }
    }
}

impl<T: Walk> Walk for Box<T> {
    fn walk(&mut self, visitor: &mut dyn Visitor) {
        (**self).walk(visitor);
    }
}

impl Walk for Node {
    fn walk(&mut self, visitor: &mut dyn Visitor) {
        if let Some(node) = &mut self.node {
            visitor.enter(node);
            node.walk(visitor);
            visitor.leave(node);
        }
    }
}

impl Walk for p::RangeVar {
    fn walk(&mut self, visitor: &mut dyn Visitor) {
        visitor.relation(self);
        self.alias.walk(visitor);
    }
}

macro_rules! messages {
    ($($message:ident: $($field:ident),*;)+) => { $(
        impl Walk for p::$message {
            fn walk(&mut self, visitor: &mut dyn Visitor) {
                let p::$message { $($field),* } = self;
                $($field.walk(visitor);)*
                let _ = visitor;
            }
        }
    )+ };
}

/// Statements with a WITH, which is walked first: its names are visible in all the rest.
macro_rules! statements {
    ($($message:ident: $with:ident, $($field:ident),*;)+) => { $(
        impl Walk for p::$message {
            fn walk(&mut self, visitor: &mut dyn Visitor) {
                let p::$message { $with, $($field),* } = self;
                visitor.open($with.as_ref());
                $with.walk(visitor);
                $($field.walk(visitor);)*
                visitor.close();
            }
        }
    )+ };
}

macro_rules! nodes {
    ($($variant:ident),+) => {
        impl Walk for NodeEnum {
            fn walk(&mut self, visitor: &mut dyn Visitor) {
                match self {
                    $(NodeEnum::$variant(inner) => inner.walk(visitor),)+
                    other => visitor.unknown(other),
                }
            }
        }
    };
}

nodes! {
        Alias, RangeVar, TypeName, ColumnRef, ParamRef, AExpr, AConst, FuncCall, AStar, AIndices,
            AIndirection, AArrayExpr, ResTarget, MultiAssignRef, TypeCast, CollateClause, SortBy,
            WindowDef, RangeSubselect, RangeFunction, RangeTableSample, RangeTableFunc,
            RangeTableFuncCol, ColumnDef, SelectStmt, InsertStmt, UpdateStmt, DeleteStmt, WithClause,
            CommonTableExpr, CtesearchClause, CtecycleClause, InferClause, IndexElem,
            OnConflictClause, ReturningClause, ReturningOption, LockingClause, IntoClause,
            GroupingSet, GroupingFunc, BoolExpr, SubLink, CaseExpr, CaseWhen, RowExpr,
            CoalesceExpr, MinMaxExpr, SqlvalueFunction, XmlExpr, XmlSerialize, NullTest,
            BooleanTest, NamedArgExpr, JoinExpr, SetToDefault, CurrentOfExpr, List, String,
            Integer, Float, Boolean, BitString, JsonOutput, JsonArgument, JsonFuncExpr, JsonTable,
            JsonTableColumn, JsonTablePathSpec, JsonKeyValue, JsonParseExpr, JsonScalarExpr,
            JsonSerializeExpr, JsonObjectConstructor, JsonArrayConstructor, JsonArrayQueryConstructor, JsonAggConstructor,
            JsonObjectAgg, JsonArrayAgg, JsonFormat, JsonReturning, JsonValueExpr, JsonBehavior,
            JsonIsPredicate
}

impl Walk for p::SelectStmt {
    fn walk(&mut self, visitor: &mut dyn Visitor) {
        visitor.select(self);
        let p::SelectStmt {
            with_clause,
            distinct_clause,
            into_clause,
            target_list,
            from_clause,
            where_clause,
            group_clause,
            group_distinct,
            having_clause,
            window_clause,
            values_lists,
            sort_clause,
            limit_offset,
            limit_count,
            limit_option,
            locking_clause,
            op,
            all,
            larg,
            rarg,
        } = self;
        visitor.open(with_clause.as_ref());
        with_clause.walk(visitor);
        distinct_clause.walk(visitor);
        into_clause.walk(visitor);
        target_list.walk(visitor);
        from_clause.walk(visitor);
        where_clause.walk(visitor);
        group_clause.walk(visitor);
        group_distinct.walk(visitor);
        having_clause.walk(visitor);
        window_clause.walk(visitor);
        values_lists.walk(visitor);
        sort_clause.walk(visitor);
        limit_offset.walk(visitor);
        limit_count.walk(visitor);
        limit_option.walk(visitor);
        locking_clause.walk(visitor);
        op.walk(visitor);
        all.walk(visitor);
        larg.walk(visitor);
        rarg.walk(visitor);
        visitor.close();
    }
}

statements! {
    InsertStmt: with_clause, relation, cols, select_stmt, on_conflict_clause, returning_clause,
        r#override;
    UpdateStmt: with_clause, relation, target_list, where_clause, from_clause, returning_clause;
    DeleteStmt: with_clause, relation, using_clause, where_clause, returning_clause;
}

messages! {
    Alias: aliasname, colnames;
    TypeName: names, type_oid, setof, pct_type, typmods, typemod, array_bounds, location;
    ColumnRef: fields, location;
    ParamRef: number, location;
    AExpr: kind, name, lexpr, rexpr, rexpr_list_start, rexpr_list_end, location;
    AConst: isnull, location, val;
    FuncCall: funcname, args, agg_order, agg_filter, over, agg_within_group, agg_star,
        agg_distinct, func_variadic, funcformat, location;
    AStar: ;
    AIndices: is_slice, lidx, uidx;
    AIndirection: arg, indirection;
    AArrayExpr: elements, list_start, list_end, location;
    ResTarget: name, indirection, val, location;
    MultiAssignRef: source, colno, ncolumns;
    TypeCast: arg, type_name, location;
    CollateClause: arg, collname, location;
    SortBy: node, sortby_dir, sortby_nulls, use_op, location;
    WindowDef: name, refname, partition_clause, order_clause, frame_options, start_offset,
        end_offset, location;
    RangeSubselect: lateral, subquery, alias;
    RangeFunction: lateral, ordinality, is_rowsfrom, functions, alias, coldeflist;
    RangeTableSample: relation, method, args, repeatable, location;
    RangeTableFunc: lateral, docexpr, rowexpr, namespaces, columns, alias, location;
    ColumnDef: colname, type_name, compression, inhcount, is_local, is_not_null, is_from_type, storage,
        storage_name, raw_default, cooked_default, identity, identity_sequence, generated, coll_clause,
        coll_oid, constraints, fdwoptions, location;
    RangeTableFuncCol: colname, type_name, for_ordinality, is_not_null, colexpr, coldefexpr,
        location;
    WithClause: ctes, recursive, location;
    CommonTableExpr: ctename, aliascolnames, ctematerialized, ctequery, search_clause,
        cycle_clause, location, cterecursive, cterefcount, ctecolnames, ctecoltypes, ctecoltypmods,
        ctecolcollations;
    CteSearchClause: search_col_list, search_breadth_first, search_seq_column, location;
    CteCycleClause: cycle_col_list, cycle_mark_column, cycle_mark_value, cycle_mark_default,
        cycle_path_column, location, cycle_mark_type, cycle_mark_typmod, cycle_mark_collation,
        cycle_mark_neop;
    InferClause: index_elems, where_clause, conname, location;
    IndexElem: name, expr, indexcolname, collation, opclass, opclassopts, ordering, nulls_ordering;
    OnConflictClause: action, infer, target_list, where_clause, location;
    ReturningClause: options, exprs;
    ReturningOption: option, value, location;
    LockingClause: locked_rels, strength, wait_policy;
    IntoClause: rel, col_names, access_method, options, on_commit, table_space_name, view_query,
        skip_data;
    GroupingSet: kind, content, location;
    GroupingFunc: xpr, args, refs, agglevelsup, location;
    BoolExpr: xpr, boolop, args, location;
    SubLink: xpr, sub_link_type, sub_link_id, testexpr, oper_name, subselect, location;
    CaseExpr: xpr, casetype, casecollid, arg, args, defresult, location;
    CaseWhen: xpr, expr, result, location;
    RowExpr: xpr, args, row_typeid, row_format, colnames, location;
    CoalesceExpr: xpr, coalescetype, coalescecollid, args, location;
    MinMaxExpr: xpr, minmaxtype, minmaxcollid, inputcollid, op, args, location;
    SqlValueFunction: xpr, op, r#type, typmod, location;
    XmlExpr: xpr, op, name, named_args, arg_names, args, xmloption, indent, r#type, typmod,
        location;
    XmlSerialize: xmloption, expr, type_name, indent, location;
    NullTest: xpr, arg, nulltesttype, argisrow, location;
    BooleanTest: xpr, arg, booltesttype, location;
    NamedArgExpr: xpr, arg, name, argnumber, location;
    JoinExpr: jointype, is_natural, larg, rarg, using_clause, join_using_alias, quals, alias,
        rtindex;
    SetToDefault: xpr, type_id, type_mod, collation, location;
    CurrentOfExpr: xpr, cvarno, cursor_name, cursor_param;
    List: items;
    String: sval;
    Integer: ival;
    Float: fval;
    Boolean: boolval;
    BitString: bsval;
    JsonOutput: type_name, returning;
    JsonArgument: val, name;
    JsonFuncExpr: op, column_name, context_item, pathspec, passing, output, on_empty, on_error,
        wrapper, quotes, location;
    JsonTable: context_item, pathspec, passing, columns, on_error, alias, lateral, location;
    JsonTableColumn: coltype, name, type_name, pathspec, format, wrapper, quotes, columns,
        on_empty, on_error, location;
    JsonTablePathSpec: string, name, name_location, location;
    JsonKeyValue: key, value;
    JsonParseExpr: expr, output, unique_keys, location;
    JsonScalarExpr: expr, output, location;
    JsonSerializeExpr: expr, output, location;
    JsonObjectConstructor: exprs, output, absent_on_null, unique, location;
    JsonArrayConstructor: exprs, output, absent_on_null, location;
    JsonArrayQueryConstructor: query, output, format, absent_on_null, location;
    JsonAggConstructor: output, agg_filter, agg_order, over, location;
    JsonObjectAgg: constructor, arg, absent_on_null, unique;
    JsonArrayAgg: constructor, arg, absent_on_null;
    JsonFormat: format_type, encoding, location;
    JsonReturning: format, typid, typmod;
    JsonValueExpr: raw_expr, formatted_expr, format;
    JsonBehavior: btype, expr, coerce, location;
    JsonIsPredicate: expr, format, item_type, unique_keys, location;
}
