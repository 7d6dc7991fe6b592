-- English for what the help desk's entries say, from the development half of the evaluation set
-- (docs/evaluation.md). What an editor has said of a word stays.
INSERT INTO chat.knowledge_synonyms (word, means) VALUES
    ('account', 'rekening'), ('recipient', 'penerima'), ('recipients', 'penerima'), ('address', 'alamat'),
    ('active', 'aktif'), ('price', 'harga'), ('unit price', 'harga satuan'), ('item', 'barang'), ('new', 'baru'),
    ('old', 'lama'), ('quarterly', 'triwulan'), ('quarter', 'triwulan'), ('cash', 'kas'), ('column', 'kolom'),
    ('locked', 'dikunci'), ('contract', 'kontrak'), ('value', 'nilai'), ('read', 'terbaca'), ('appear', 'muncul'),
    ('appears', 'muncul'), ('verified', 'diverifikasi'), ('verified', 'verifikasi'), ('issued', 'terbit'),
    ('approved', 'disetujui'), ('functional', 'fungsional'), ('code', 'kode'), ('expired', 'kedaluwarsa'),
    ('expired', 'kadaluarsa'), ('importing', 'impor'), ('import', 'impor'), ('salary', 'gaji'), ('data', 'data'),
    ('balance sheet', 'neraca'), ('balanced', 'seimbang'), ('depreciation', 'penyusutan'), ('ledger', 'buku besar'),
    ('general ledger', 'buku besar'), ('whole year', 'setahun'), ('book value', 'nilai buku'), ('vehicle', 'kendaraan'),
    ('electronic', 'elektronik'), ('certificate', 'sertifikat'), ('printed', 'cetak'), ('cut off', 'terpotong'),
    ('right', 'kanan'), ('downloaded', 'unduh'), ('downloaded', 'diunduh'), ('file', 'berkas'), ('white', 'putih'),
    ('page', 'halaman'), ('clicking', 'klik'), ('click', 'klik'), ('notification', 'notifikasi'), ('sent', 'terkirim'),
    ('social', 'sosial'), ('assistance', 'bantuan'), ('date', 'tanggal'), ('report', 'laporan'), ('passwords', 'sandi'),
    ('password', 'sandi'), ('wrong', 'keliru'), ('print', 'dicetak'), ('cannot', 'tidak'), ('not', 'tidak'), ('no', 'tidak')
ON CONFLICT DO NOTHING;
