//! One column of a row group, value by value with its levels.

use std::collections::VecDeque;

use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::DataType;
use parquet::errors::ParquetError;
use parquet::schema::types::ColumnDescPtr;

use super::value::{Cell, Meaning, Stored};

/// Records that are decoded at once.
const BATCH: usize = 256;

/// Definition and repetition level of an entry: how much of its path is there, and what it repeats.
pub(super) type Levels = (i16, i16);

/// A column and the place reached in it.
pub(super) struct Column {
    source: Box<dyn Source + Send>,
    description: ColumnDescPtr,
    definition: Vec<i16>,
    repetition: Vec<i16>,
    /// Values not yet taken; an entry that is null has none.
    cells: VecDeque<Cell>,
    /// Entries decoded, and how many of them are behind.
    decoded: usize,
    at: usize,
}

impl Column {
    pub(super) fn new(description: ColumnDescPtr, reader: ColumnReader) -> Self {
        let meaning = Meaning::of(&description);
        Self {
            source: source(reader, meaning),
            description,
            definition: Vec::new(),
            repetition: Vec::new(),
            cells: VecDeque::new(),
            decoded: 0,
            at: 0,
        }
    }

    /// Its path with dots: `messages.list.element.content`.
    pub(super) fn name(&self) -> String {
        self.description.path().string()
    }

    /// Levels of the next entry; `None` at the end.
    pub(super) fn peek(&mut self) -> Result<Option<Levels>, ParquetError> {
        if self.at == self.decoded {
            self.at = 0;
            self.definition.clear();
            self.repetition.clear();
            self.decoded = self.source.decode(&mut self.definition, &mut self.repetition, &mut self.cells)?;
            if self.decoded == 0 {
                return Ok(None);
            }
        }
        let level = |levels: &[i16], most| levels.get(self.at).copied().unwrap_or(most);
        // A column that cannot be null, or cannot repeat, stores no levels.
        Ok(Some((level(&self.definition, self.description.max_def_level()), level(&self.repetition, 0))))
    }

    /// Goes past the next entry; its value, unless it is null.
    pub(super) fn take(&mut self) -> Result<Option<Cell>, ParquetError> {
        let Some((definition, _)) = self.peek()? else {
            return Err(ParquetError::EOF("the column ends before the rows do".to_owned()));
        };
        self.at += 1;
        if definition < self.description.max_def_level() {
            return Ok(None);
        }
        match self.cells.pop_front() {
            Some(cell) => Ok(Some(cell)),
            None => Err(ParquetError::EOF("the column has fewer values than entries".to_owned())),
        }
    }
}

/// A decoder of batches, whatever the type.
trait Source {
    /// Decodes the next records, whole; how many entries they have, 0 at the end.
    fn decode(
        &mut self,
        definition: &mut Vec<i16>,
        repetition: &mut Vec<i16>,
        cells: &mut VecDeque<Cell>,
    ) -> Result<usize, ParquetError>;
}

struct Typed<T: DataType> {
    reader: ColumnReaderImpl<T>,
    values: Vec<T::T>,
    meaning: Meaning,
}

impl<T: DataType> Source for Typed<T>
where
    T::T: Stored,
{
    fn decode(
        &mut self,
        definition: &mut Vec<i16>,
        repetition: &mut Vec<i16>,
        cells: &mut VecDeque<Cell>,
    ) -> Result<usize, ParquetError> {
        loop {
            self.values.clear();
            let (records, values, levels) =
                self.reader.read_records(BATCH, Some(definition), Some(repetition), &mut self.values)?;
            cells.extend(self.values.iter().map(|value| value.cell(self.meaning)));
            // A record may be counted whose entries came before.
            if levels > 0 || (records == 0 && values == 0) {
                return Ok(levels);
            }
        }
    }
}

fn source(reader: ColumnReader, meaning: Meaning) -> Box<dyn Source + Send> {
    fn typed<T: DataType>(reader: ColumnReaderImpl<T>, meaning: Meaning) -> Box<dyn Source + Send>
    where
        T::T: Stored,
    {
        Box::new(Typed { reader, values: Vec::new(), meaning })
    }
    match reader {
        ColumnReader::BoolColumnReader(reader) => typed(reader, meaning),
        ColumnReader::Int32ColumnReader(reader) => typed(reader, meaning),
        ColumnReader::Int64ColumnReader(reader) => typed(reader, meaning),
        ColumnReader::Int96ColumnReader(reader) => typed(reader, meaning),
        ColumnReader::FloatColumnReader(reader) => typed(reader, meaning),
        ColumnReader::DoubleColumnReader(reader) => typed(reader, meaning),
        ColumnReader::ByteArrayColumnReader(reader) => typed(reader, meaning),
        ColumnReader::FixedLenByteArrayColumnReader(reader) => typed(reader, meaning),
    }
}
